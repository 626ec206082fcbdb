"""The network below the listener with limits: on who connects, on what one message may hold, on how long it takes.

pynetdicom reads whatever length a peer announces and waits as long as the peer likes; these classes do not.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAX_PDU = 4 << 20
"""Ours are 64 KiB, as announced; requests for an association with hundreds of contexts may be longer."""
_COMMAND_ROOM = 1 << 20


@dataclass
class Budget:
    """Bytes that all associations together may hold in messages that are not complete or not yet stored."""

    limit: int
    per_message: int
    idle_timeout_s: float
    _held: dict[threading.Thread, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, association: threading.Thread, size: int) -> bool:
        """Reserve bytes; False where there is no room. Associations that died hold nothing any more."""
        with self._lock:
            if sum(self._held.values()) + size > self.limit:
                self._held = {one: held for one, held in self._held.items() if one.is_alive()}
            if sum(self._held.values()) + size > self.limit:
                return False
            self._held[association] = self._held.get(association, 0) + size
            return True

    def held(self, association: threading.Thread) -> int:
        """Bytes that an association has reserved."""
        return self._held.get(association, 0)

    def give(self, association: threading.Thread) -> None:
        """Return all that an association has reserved."""
        with self._lock:
            self._held.pop(association, None)


class BoundedSocket(AssociationSocket):
    """Reads one PDU at a time, within the budget; beyond a limit the connection counts as closed by the peer."""

    def __init__(self, assoc: Association, client_socket: socket.socket, budget: Budget) -> None:
        super().__init__(assoc, client_socket=client_socket)
        client_socket.settimeout(budget.idle_timeout_s)
        self._budget = budget

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly so many bytes, fewer where the peer has closed. Raises OSError beyond a limit."""
        try:
            content = self._read(nr_bytes)
        except OSError:
            self._end_waiting()
            raise
        if len(content) < nr_bytes:
            self._end_waiting()
        return content

    def _read(self, nr_bytes: int) -> bytearray:
        self._hold(nr_bytes)
        content = bytearray(nr_bytes)
        view = memoryview(content)
        read = 0
        while read < nr_bytes:
            if self.socket is None:
                break
            count = self.socket.recv_into(view[read:])
            if count == 0:
                break
            read += count
        view.release()
        del content[read:]
        return content

    def message_done(self) -> None:
        """What was held for the last message is free again."""
        self._budget.give(self.assoc)

    def close(self) -> None:
        """Close the connection and return what it held."""
        super().close()
        self._end_waiting()
        self.message_done()

    def _end_waiting(self) -> None:
        """After a peer that went before it asked for an association: an empty answer ends the wait for it.

        pynetdicom would wait on, and a few such connections would keep all others out.
        """
        if self.assoc.requestor.primitive is None:
            self.assoc.dul.to_user_queue.put(None)

    def _hold(self, size: int) -> None:
        if size > _MAX_PDU or self._budget.held(self.assoc) + size > self._budget.per_message + _COMMAND_ROOM:
            raise OSError("the message is larger than allowed")
        if not self._budget.take(self.assoc, size):
            raise OSError("too much is being received at once")


class BoundedRequestHandler(RequestHandler):
    """Gives each association a bounded socket."""

    def _create_association(self) -> Association:
        association = super()._create_association()
        server = self.server
        association.dul.event_queue.queue.clear()  # the plain socket's 'connection opened'; the next one says it
        association.dul.socket = BoundedSocket(association, self.request, server.budget)
        return association


class BoundedServer(ThreadedAssociationServer):
    """Accepts connections from the allowed networks only, and no more than a number of them."""

    daemon_threads = True

    def __init__(
        self, *arguments: Any, networks: Sequence[Network], most: int, budget: Budget, **named: Any
    ) -> None:
        self.networks, self.most, self.budget = tuple(networks), most, budget
        super().__init__(*arguments, request_handler=BoundedRequestHandler, **named)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether a connection is accepted at all."""
        return self.allows(client_address[0]) and len(self.active_associations) < self.most

    def allows(self, address: str) -> bool:
        """Whether any peer may call from there."""
        return is_in(address, self.networks)

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection; TLS shakes hands later, in the connection's own thread."""
        assert self.socket is not None
        client, address = self.socket.accept()
        client.settimeout(self.budget.idle_timeout_s)
        if self.ssl_context is not None:
            client = self.ssl_context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
        return client, address


def is_in(address: str, networks: Sequence[Network]) -> bool:
    """Whether an address lies in one of the networks; IPv4 in IPv6 (::ffff:a.b.c.d) counts as IPv4."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return any(found.version == network.version and found in network for network in networks)


def server_context(certificate: str, key: str, ca: str | None) -> ssl.SSLContext:
    """TLS for the listener; with `ca` peers have to show a certificate that it signed."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    context.load_cert_chain(certificate, key)
    if ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context
