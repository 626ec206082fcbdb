"""Mutated DICOM files and malformed associations, from a seed; for the tests and benchmarks/pacs_fuzz.py."""

from __future__ import annotations

import random
import socket
import struct

from klip_engine.errors import InputError
from klip_engine.pacs.spool import Spool
from tests.pacs.studies import as_bytes, ct_study


def mutated_file(chance: random.Random, original: bytes) -> bytes:
    """Bits flipped, parts cut out, doubled, overwritten or with absurd lengths; often in the header."""
    content = bytearray(original)
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        if not content:
            break
        at = chance.randrange(min(len(content), chance.choice([200, 1200, len(content)])))
        kind = chance.randrange(6)
        if kind == 0:
            content[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            content[at : at + 4] = struct.pack(
                "<I", chance.choice([0, 0xFFFFFFFF, 0x7FFFFFFF, chance.getrandbits(32)])
            )
        elif kind == 2:
            del content[at : at + chance.randrange(1, 64)]
        elif kind == 3:
            content[at:at] = content[at : at + chance.randrange(1, 64)]
        elif kind == 4:
            content[at : at + 8] = chance.randbytes(8)
        else:
            del content[at:]
    return bytes(content)


def store_mutated(spool: Spool, count: int, seed: int) -> tuple[int, int]:
    """Offer mutated files to a spool: how many it took and how many it refused; other errors are raised."""
    chance = random.Random(seed)
    originals = [as_bytes(ds) for ds in ct_study(f"fuzz {seed}", 4)]
    taken = refused = 0
    for _ in range(count):
        try:
            spool.store([mutated_file(chance, chance.choice(originals))], "fuzz")
            taken += 1
        except InputError:
            refused += 1
    return taken, refused


def malformed_association(chance: random.Random, port: int) -> None:
    """Connect and talk nonsense: noise, absurd PDU lengths, a request cut short or mutated, P-DATA first."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
        kind = chance.randrange(5)
        if kind == 0:
            sent = chance.randbytes(chance.randrange(1, 4096))
        elif kind == 1:
            sent = struct.pack(">BBL", chance.choice([1, 4, 5, 7, 99]), 0, 0xFFFFFFF0) + chance.randbytes(64)
        elif kind == 2:
            request = associate_request()
            sent = request[: chance.randrange(1, len(request))]
        elif kind == 3:
            sent = mutated_file(chance, associate_request())
        else:
            sent = struct.pack(">BBL", 4, 0, 32) + chance.randbytes(32)
        try:
            peer.sendall(sent)
            peer.shutdown(socket.SHUT_WR)
            peer.settimeout(10)
            while peer.recv(4096):
                pass
        except OSError:
            return


def associate_request(calling: str = "SCANNER", called: str = "KLIP") -> bytes:
    """A-ASSOCIATE-RQ for CT storage (PS3.8 9.3.2), written by hand."""

    def item(kind: int, content: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(content)) + content

    context = item(0x30, b"1.2.840.10008.5.1.4.1.1.2") + item(0x40, b"1.2.840.10008.1.2.1")
    user = item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3.4")
    content = struct.pack(">HH", 1, 0) + called.ljust(16).encode() + calling.ljust(16).encode() + bytes(32)
    content += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, b"\1\0\0\0" + context) + item(0x50, user)
    return struct.pack(">BBL", 1, 0, len(content)) + content
