"""What sending one object can come to, whatever it is sent with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from klip_engine.errors import UsageError
from klip_engine.pacs.config import Destination


class Verdict(Enum):
    """What the peer made of an object."""

    ARRIVED = "arrived"
    AWAY = "away"
    """The peer could not be reached or broke off: nothing is known of the object, the others need not be tried."""
    LATER = "later"
    """The peer cannot take this object now."""
    UNKNOWN_KIND = "unknown kind"
    """The peer does not take objects of this kind."""
    REFUSED = "refused"
    """The peer will never take this object."""


@dataclass(frozen=True)
class Answer:
    """The verdict with a reason for logs: no text of the peer's, which might name a patient."""

    verdict: Verdict
    reason: str = ""


class Sender(Protocol):
    """Sends to one destination."""

    def __call__(self, files: Sequence[Path]) -> Iterator[Answer]:
        """One answer per file, in order, each as soon as it is known; ends after an AWAY."""


SenderFactory = Callable[[Destination], Sender]


def make_sender(destination: Destination) -> Sender:
    """C-STORE or STOW-RS, as the configuration says."""
    if destination.kind == "dicom":
        from klip_engine.pacs.store_scu import StoreSender

        return StoreSender(destination)
    from klip_engine.pacs.stow import StowSender

    return StowSender(destination)


def read_password(destination_file: Path | None) -> str:
    """The first line of a password file. Raises UsageError where it cannot be read."""
    if destination_file is None:
        return ""
    try:
        return destination_file.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError, UnicodeDecodeError) as error:
        raise UsageError(f"the password file {destination_file} cannot be read") from error
