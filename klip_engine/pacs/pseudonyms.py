"""Names for studies that tell nothing of the patient: UIDs hashed with a key that only this installation has."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from klip_engine.errors import InputError
from klip_engine.files import write_file

KEY_FILE = "pseudonyms.key"


@dataclass(frozen=True)
class Pseudonyms:
    """HMAC-SHA256 of identifiers; file names take 32 hexadecimal digits, log lines the first 12 of them."""

    key: bytes

    def name(self, identifier: str) -> str:
        """A file or folder name for a UID: 32 hexadecimal digits, whatever the identifier holds."""
        return hmac.new(self.key, identifier.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:32]

    def short(self, identifier: str) -> str:
        """The same for log lines and pages: the first 12 digits."""
        return self.name(identifier)[:12]


def load_pseudonyms(state: Path) -> Pseudonyms:
    """The installation's key from its state folder, made at the first start, readable by the owner only.

    Raises InputError when the key is there but damaged: with another key nothing in the folder would be found.
    """
    file = state / KEY_FILE
    if not file.exists():
        write_file(file, secrets.token_hex(32).encode())
        os.chmod(file, 0o600)
    try:
        key = bytes.fromhex(file.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read; put the saved copy of this key back") from error
    if len(key) != 32:
        raise InputError(f"{file} is damaged; put the saved copy of this key back")
    return Pseudonyms(key)
