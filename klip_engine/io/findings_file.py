"""findings.json read back: what every reader of results begins with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from klip_engine.errors import InputError
from klip_engine.io.atomic import FINDINGS_FILE, SCHEMA


def read_findings(folder: Path) -> dict[str, Any]:
    """findings.json of a folder of results; raises InputError where there is none, or none of `SCHEMA`."""
    path = folder / FINDINGS_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{folder} holds no results: there is no {FINDINGS_FILE} in it") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read; run the detection again") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise InputError(f"{path} is not of the schema {SCHEMA}; run the detection again")
    return document
