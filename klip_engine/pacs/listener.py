"""The DICOM door: a storage SCP (PS3.4 B) and verification SCP (PS3.4 A) for peers on a list.

An instance is written as it came, byte for byte, and acknowledged only when it is on the disk and in the journal.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from io import BytesIO

from pydicom.filewriter import write_file_meta_info
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom._globals import ALL_TRANSFER_SYNTAXES
from pynetdicom.dsutils import create_file_meta
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from klip_engine.errors import InputError, ResourceError, UsageError
from klip_engine.pacs.bounded_transport import BoundedServer, Budget, is_in, server_context
from klip_engine.pacs.commitment import CommitmentReports
from klip_engine.pacs.config import Listener as ListenerConfig
from klip_engine.pacs.event_log import Events, Level
from klip_engine.pacs.pseudonyms import Pseudonyms
from klip_engine.pacs.spool import MismatchError, Spool, Stored

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
DATA_SET_DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000

_SAID = {
    Stored.NEW: "instance-stored",
    Stored.AGAIN: "instance-again",
    Stored.KEPT_FIRST: "instance-differs",
}
_DEFLATED = "1.2.840.10008.1.2.1.99"


class Listener:
    """Listens in threads of its own from `start` to `stop`."""

    def __init__(
        self,
        config: ListenerConfig,
        spool: Spool,
        pseudonyms: Pseudonyms,
        events: Events,
        reports: CommitmentReports | None = None,
    ) -> None:
        self._config, self._spool, self._pseudonyms, self._events = config, spool, pseudonyms, events
        self._reports = reports
        self._networks = {
            peer.ae_title.strip(): tuple(ipaddress.ip_network(a, strict=False) for a in peer.addresses)
            for peer in config.peers
        }
        self._pace = _Pace(config.max_instances_per_minute)
        self._server: BoundedServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is listened on; of use where the configuration says 0."""
        assert self._server is not None
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to listen. Raises UsageError when the address or port cannot be used."""
        _config.LOG_HANDLER_LEVEL = "none"  # pynetdicom's own log lines would name patients
        entity = AE(ae_title=self._config.ae_title)
        entity.require_calling_aet = list(self._networks)
        entity.require_called_aet = True
        entity.maximum_associations = self._config.max_associations
        entity.maximum_pdu_size = 1 << 16
        entity.network_timeout = self._config.idle_timeout_s
        entity.acse_timeout = min(10.0, self._config.idle_timeout_s)
        entity.dimse_timeout = self._config.idle_timeout_s
        syntaxes = [syntax for syntax in ALL_TRANSFER_SYNTAXES if syntax != _DEFLATED]
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(context.abstract_syntax or "", syntaxes)
        entity.add_supported_context(Verification)
        if self._reports is not None:  # here the peer that reports has the role of the SCP
            entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        tls = self._config.tls
        try:
            context = (
                server_context(str(tls.certificate), str(tls.key), str(tls.ca) if tls.ca else None) if tls else None
            )
        except OSError as error:
            raise UsageError(f"listener.tls: the certificate or key cannot be used ({error.strerror})") from error
        budget = Budget(
            self._config.max_memory_mb << 20, self._config.max_instance_mb << 20, self._config.idle_timeout_s
        )
        try:
            self._server = entity.make_server(
                (self._config.address, self._config.port),
                ssl_context=context,
                evt_handlers=[
                    (evt.EVT_REQUESTED, self._requested),
                    (evt.EVT_REJECTED, self._rejected),
                    (evt.EVT_C_STORE, self._store),
                    (evt.EVT_C_ECHO, self._echo),
                    (evt.EVT_N_EVENT_REPORT, self._report),
                ],
                server_class=BoundedServer,
                networks=[network for networks in self._networks.values() for network in networks],
                most=2 * self._config.max_associations,
                budget=budget,
            )
        except OSError as error:
            raise UsageError(
                f"listener: cannot listen on {self._config.address}, port {self._config.port} ({error.strerror}); "
                "is the service running already?"
            ) from error
        entity._servers.append(self._server)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="listener", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop to listen; associations that are open are ended, what they acknowledged is kept."""
        if self._server is None or self._thread is None:
            return
        for association in self._server.active_associations:
            association.abort()
        self._server.shutdown()
        self._thread.join()
        self._server = None

    def _requested(self, event: evt.Event) -> None:
        """A known AE title from an address that is not its own is rejected (PS3.8 9.3.4: calling AE title)."""
        title = event.assoc.requestor.primitive.calling_ae_title.strip()
        if title in self._networks and not is_in(event.assoc.requestor.address, self._networks[title]):
            event.assoc.acse.send_reject(0x01, 0x01, 0x03)
            self._rejected(event)
            event.assoc.kill()

    def _rejected(self, event: evt.Event) -> None:
        self._events("association-rejected", Level.WARNING, address=event.assoc.requestor.address)

    def _echo(self, event: evt.Event) -> int:
        event.assoc.dul.socket.message_done()
        return SUCCESS

    def _report(self, event: evt.Event) -> tuple[int, None]:
        try:
            return self._reports.received(event) if self._reports is not None else (0x0122, None)
        finally:
            event.assoc.dul.socket.message_done()

    def _store(self, event: evt.Event) -> int:
        peer = event.assoc.requestor.ae_title.strip()
        try:
            self._pace.wait(peer)
            return self._keep(event, peer)
        except ResourceError as error:
            self._events("instance-refused", Level.ERROR, peer=peer, reason=str(error))
            return OUT_OF_RESOURCES
        except InputError as error:
            self._events("instance-refused", Level.WARNING, peer=peer, reason=str(error))
            return DATA_SET_DOES_NOT_MATCH if isinstance(error, MismatchError) else CANNOT_UNDERSTAND
        except Exception as error:  # whatever it is, the instance was not stored, and the sender has to know
            self._events("instance-refused", Level.ERROR, peer=peer, reason=f"unexpected {type(error).__name__}")
            return OUT_OF_RESOURCES
        finally:
            event.assoc.dul.socket.message_done()

    def _keep(self, event: evt.Event, peer: str) -> int:
        request = event.request
        self._spool.room(request.DataSet.getbuffer().nbytes)
        meta = create_file_meta(
            sop_class_uid=request.AffectedSOPClassUID,
            sop_instance_uid=request.AffectedSOPInstanceUID,
            transfer_syntax=event.context.transfer_syntax,
        )
        start = BytesIO()
        start.write(b"\0" * 128 + b"DICM")
        write_file_meta_info(start, meta)
        with request.DataSet.getbuffer() as content:
            announced = str(request.AffectedSOPInstanceUID)
            stored, header = self._spool.store([start.getbuffer(), content], f"dicom:{peer}", expected=announced)
        level = Level.WARNING if stored is Stored.KEPT_FIRST else Level.INFO
        name = self._pseudonyms.short
        self._events(_SAID[stored], level, peer=peer, study=name(header.study), instance=name(header.instance))
        return SUCCESS


class _Pace:
    """Slows a peer down to a number of instances a minute by making it wait for its answer."""

    def __init__(self, per_minute: int) -> None:
        self._interval = 60 / per_minute if per_minute else 0.0
        self._next: dict[str, float] = {}
        self._lock = threading.Lock()

    def wait(self, peer: str) -> None:
        if not self._interval:
            return
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next.get(peer, now))
            self._next[peer] = turn + self._interval
        time.sleep(min(turn - now, 30.0))
