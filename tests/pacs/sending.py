"""A peer that sends studies by C-STORE."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pynetdicom import AE


def send(study: list[Dataset], port: int, *, calling: str = "SCANNER", called: str = "KLIP") -> list[int]:
    """C-STORE each data set over one association; the statuses, fewer where it ends before."""
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    for sop_class, syntax in {(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID) for ds in study}:
        entity.add_requested_context(sop_class, syntax)
    association = entity.associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        return []
    statuses: list[int] = []
    for dataset in study:
        if not association.is_established:
            return statuses
        try:
            statuses.append(int(association.send_c_store(dataset).get("Status", -1)))
        except RuntimeError:  # the peer died between two instances
            return statuses
    association.release()
    return statuses
