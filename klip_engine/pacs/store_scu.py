"""Sends objects by C-STORE (PS3.4 B): one association for what is due, one answer for each object."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import dcmread, read_file_meta_info
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification

from klip_engine.errors import UsageError
from klip_engine.pacs.config import Destination, Tls
from klip_engine.pacs.sending import Answer, Verdict

_SOP_CLASS_NOT_SUPPORTED = (0x0122, 0xA800)
_MAX_CONTEXTS = 128
_DAMAGED = Answer(Verdict.REFUSED, "the result file is damaged")


class StoreSender:
    """A storage SCU for one destination."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination

    def __call__(self, files: Sequence[Path]) -> Iterator[Answer]:
        """Send files; ends after an AWAY."""
        kinds = [_kind(file) for file in files]
        wanted = [kind for kind in dict.fromkeys(kinds) if kind is not None]
        if not wanted:
            yield from (_DAMAGED for _ in files)
            return
        association = associate(self._destination, wanted[:_MAX_CONTEXTS])
        if not association.is_established:
            yield no_association(association)
            return
        try:
            accepted = {(c.abstract_syntax, c.transfer_syntax[0]) for c in association.accepted_contexts}
            for file, kind in zip(files, kinds, strict=True):
                if kind is None:
                    yield _DAMAGED
                    continue
                if kind not in accepted:
                    yield Answer(Verdict.UNKNOWN_KIND, "the peer accepts no objects of this kind")
                    continue
                answer = _send(association, file)
                yield answer
                if answer.verdict is Verdict.AWAY:
                    return
        finally:
            if association.is_established:
                association.release()

    def echo(self) -> Answer:
        """C-ECHO (PS3.4 A)."""
        association = associate(self._destination, [(str(Verification), "1.2.840.10008.1.2")])
        if not association.is_established:
            return no_association(association)
        try:
            status = association.send_c_echo()
        finally:
            association.release()
        if status and status.Status == 0:
            return Answer(Verdict.ARRIVED)
        return Answer(Verdict.LATER, "the peer does not answer C-ECHO with success")


def associate(destination: Destination, kinds: Sequence[tuple[str, str]]) -> Association:
    """Ask for an association with a context for each (SOP class, transfer syntax); it may not be established."""
    _config.LOG_HANDLER_LEVEL = "none"  # pynetdicom's own log lines would name patients
    entity = AE(ae_title=destination.calling_ae_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = destination.timeout_s
    entity.connection_timeout = min(destination.timeout_s, 20.0)
    for sop_class, syntax in kinds:
        entity.add_requested_context(sop_class, syntax)
    tls = (client_context(destination.tls), destination.host) if destination.tls else None
    return entity.associate(
        destination.host, destination.port, ae_title=destination.ae_title, tls_args=tls, max_pdu=1 << 17
    )


def no_association(association: Association) -> Answer:
    """Why an association was not established."""
    if association.is_rejected:
        return Answer(Verdict.AWAY, "the peer rejects the association (AE titles or addresses it does not know)")
    if association.is_aborted and association.rejected_contexts:
        return Answer(Verdict.UNKNOWN_KIND, "the peer accepts no objects of this kind")
    return Answer(Verdict.AWAY, "the peer cannot be reached")


def client_context(tls: Tls) -> ssl.SSLContext:
    """TLS with a certificate of our own; the peer's has to be signed by `ca` or a known authority."""
    try:
        context = ssl.create_default_context(cafile=str(tls.ca) if tls.ca else None)
        context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:
        raise UsageError(f"the TLS certificate or key cannot be used ({error.strerror})") from error
    return context


def _send(association: Association, file: Path) -> Answer:
    try:
        status = association.send_c_store(dcmread(file))
    except (RuntimeError, ValueError, AttributeError) as error:
        if not association.is_established:
            return Answer(Verdict.AWAY, "the peer closed the association")
        return Answer(Verdict.REFUSED, f"the object cannot be sent ({type(error).__name__})")
    if "Status" not in status:
        return Answer(Verdict.AWAY, "the peer closed the association or did not answer in time")
    code = int(status.Status)
    reason = f"the peer answers 0x{code:04X}"
    if code == 0 or code & 0xF000 == 0xB000:  # warnings: stored, but something was changed (PS3.4 B.2.3)
        return Answer(Verdict.ARRIVED)
    if code in _SOP_CLASS_NOT_SUPPORTED:
        return Answer(Verdict.UNKNOWN_KIND, reason)
    if code == 0x0111:  # duplicate SOP instance: it is there
        return Answer(Verdict.ARRIVED)
    if code & 0xFF00 == 0xA900 or code & 0xF000 == 0xC000:
        return Answer(Verdict.REFUSED, reason)
    return Answer(Verdict.LATER, reason)


def _kind(file: Path) -> tuple[str, str] | None:
    """SOP class and transfer syntax, None where the file is damaged."""
    try:
        meta = read_file_meta_info(file)
        return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
    except (OSError, AttributeError, ValueError, InvalidDicomError):
        return None
