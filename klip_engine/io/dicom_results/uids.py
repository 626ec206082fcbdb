"""UIDs that follow from what a result was made of: the same study, prior and settings give the same ones."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

from klip_engine.io.dicom_results.source import SourceSeries

LAYOUT = 1
"""To be raised whenever the same result is written as other objects: a UID never has two contents."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://arxiv.org/abs/2605.31596")

IMPLEMENTATION = f"2.25.{uuid.uuid5(_NAMESPACE, 'implementation').int}"
"""Implementation Class UID of the files (PS3.7 D.3.3.2)."""


@dataclass(frozen=True)
class ResultUids:
    """Names the parts of one result."""

    origin: str

    def uid(self, *part: object) -> str:
        """A UID below 2.25, from a name-based UUID (PS3.5 B.2, RFC 9562 5.5)."""
        name = json.dumps([self.origin, *map(str, part)])
        return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"


def result_uids(source: SourceSeries, document: dict[str, Any]) -> ResultUids:
    """UIDs of the results in findings.json of this series.

    They depend on study, series and every source image (a series that was completed later gives other results),
    on the prior, the settings with the null distribution (its key holds the version of the scoring), the engine
    and the layout of the objects; not on when it ran.
    """
    images = [(image.sop_instance, image.frame) for image in source.images]
    made_of = [source.study_uid, source.series_uid, images, document.get("prior"), document.get("settings")]
    return ResultUids(json.dumps([LAYOUT, document.get("engine"), *made_of], sort_keys=True))
