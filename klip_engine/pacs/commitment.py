"""Storage commitment (PS3.4 J): a peer is asked to take responsibility for what it was sent.

The request (N-ACTION) names the instances; the answer (N-EVENT-REPORT) comes at any time later, over an association
that the peer opens to the listener, or still over the one of the request.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pynetdicom import evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from klip_engine.pacs.config import Destination
from klip_engine.pacs.event_log import Events, Level
from klip_engine.pacs.journal import Deliveries, Delivery
from klip_engine.pacs.store_scu import associate

_IMPLICIT = "1.2.840.10008.1.2"
_REQUEST = 1
SUCCESS, PROCESSING_FAILURE = 0x0000, 0x0110


def request_commitment(destination: Destination, files: Sequence[Path]) -> bool:
    """Ask a peer to commit to the instances in these files; False where it does not offer that.

    A peer that cannot be asked now has not answered either: its answer is awaited, and in the end missed.
    """
    association = associate(destination, [(str(StorageCommitmentPushModel), _IMPLICIT)])
    if not association.is_established:
        return not association.rejected_contexts
    try:
        request = Dataset()
        request.TransactionUID = f"2.25.{uuid.uuid4().int}"
        request.ReferencedSOPSequence = [_reference(file) for file in files]
        status, _ = association.send_n_action(
            request, _REQUEST, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        return "Status" in status and int(status.Status) == SUCCESS
    except (RuntimeError, ValueError):  # broken off: not known whether it was heard
        return True
    finally:
        if association.is_established:
            association.release()


class CommitmentReports:
    """Takes the answers in: what is committed is done, what is not is sent again."""

    def __init__(
        self,
        destinations: Sequence[Destination],
        deliveries: Deliveries,
        result: Callable[[str], Path],
        events: Events,
        clock: Callable[[], float],
    ) -> None:
        """`result`: the result folder of a job, by its key."""
        self._destinations = [one for one in destinations if one.commitment]
        self._deliveries, self._result, self._events, self._clock = deliveries, result, events, clock

    def received(self, event: evt.Event) -> tuple[int, None]:
        """Handler of N-EVENT-REPORT: status and no reply."""
        title = event.assoc.requestor.ae_title.strip()
        try:
            report = event.event_information
            stored = {str(item.ReferencedSOPInstanceUID) for item in report.get("ReferencedSOPSequence") or []}
            failed = {str(item.ReferencedSOPInstanceUID) for item in report.get("FailedSOPSequence") or []}
        except Exception:  # what a peer sends may be anything
            return PROCESSING_FAILURE, None
        for destination in self._destinations:
            if destination.ae_title.strip() == title:
                self._settle(destination, stored, failed)
        return SUCCESS, None

    def _settle(self, destination: Destination, stored: set[str], failed: set[str]) -> None:
        now = self._clock()
        for delivery in self._deliveries.uncommitted(destination.name):
            uid = self._instance(delivery)
            if uid in stored:
                self._deliveries.done(delivery, now)
                self._say("committed", Level.INFO, delivery)
            elif uid in failed:
                self._deliveries.try_again(delivery, now, "the peer did not commit to it", now)
                self._say("not-committed", Level.WARNING, delivery)

    def _instance(self, delivery: Delivery) -> str:
        file = self._result(delivery.job) / delivery.file
        return str(_reference(file).ReferencedSOPInstanceUID) if file.is_file() else ""

    def _say(self, event: str, level: Level, delivery: Delivery) -> None:
        self._events(event, level, job=delivery.job[:12], destination=delivery.destination, object=delivery.object)


def _reference(file: Path) -> Dataset:
    meta = read_file_meta_info(file)
    reference = Dataset()
    reference.ReferencedSOPClassUID = meta.MediaStorageSOPClassUID
    reference.ReferencedSOPInstanceUID = meta.MediaStorageSOPInstanceUID
    return reference
