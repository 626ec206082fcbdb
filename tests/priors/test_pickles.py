"""Nothing of a pickle is executed, whatever it says; what it holds as data comes out."""

from __future__ import annotations

import builtins
import codecs
import io
import os
import pickle
import struct
import subprocess
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from klip_engine.errors import PriorError
from klip_engine.priors.pickles import read_pickle

PROTOCOLS = (2, 3, 4, 5)


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


class Again(Calls):
    """A call on a tuple of arguments that several calls share."""

    def __init__(self, function: Any, arguments: tuple[Any, ...]) -> None:
        self.parts = function, arguments


class SetsState:
    """Pickles as an ordered dictionary whose state is set to a call."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        return OrderedDict, (), self.state


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_data_comes_back_as_pickles_own_reader_gives_it(protocol: int) -> None:
    data = {
        "numbers": [1, -300, 2**40, 2.5, True, None, np.float64(0.25), np.int64(7)],
        "text": ("a", "ä", b"\x00\xff", bytearray(b"xy")),
        "containers": OrderedDict(a=[], b=(), c={}, d={1, 2}),
    }
    written = pickle.dumps(data, protocol=protocol)
    if protocol < 5:
        data["text"] = ("a", "ä", b"\x00\xff")
        written = pickle.dumps(data, protocol=protocol)
    assert read_pickle(written) == pickle.loads(written)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tensors_of_every_kind_come_back_equal(protocol: int) -> None:
    whole = torch.arange(24.0).view(2, 3, 4)
    tensors = [
        whole,
        whole[:, 1],
        whole.permute(2, 0, 1),
        torch.tensor(3.5),
        torch.empty(0, 2),
        whole.half(),
        whole.bfloat16(),
        whole.long(),
        whole > 5,
        torch.nn.Parameter(whole.double()),
    ]
    for tensor, back in zip(tensors, read_pickle(pickle.dumps(tensors, protocol=protocol)), strict=True):
        assert back.dtype == tensor.dtype
        assert torch.equal(back, tensor)


def evil(folder: Path) -> dict[str, Any]:
    """Objects whose unpickling would leave a file in the folder, each in another way."""
    mark = str(folder / "executed")
    touch = Calls(os.system, f"touch {mark}")
    nested_storage = io.BytesIO()
    torch.save(torch.ones(2).untyped_storage(), nested_storage, _use_new_zipfile_serialization=False)
    return {
        "os.system": touch,
        "eval": Calls(eval, f"open({mark!r}, 'w')"),
        "exec": Calls(exec, f"open({mark!r}, 'w')"),
        "open": Calls(open, mark, "w"),
        "subprocess": Calls(subprocess.call, ["touch", mark]),
        "nested in a list": [1, [2, {"a": touch}]],
        "nested in a tensor's arguments": Calls(torch._utils._rebuild_parameter, touch, False, OrderedDict()),
        "getattr": Calls(getattr, Calls(__import__, "os"), "system"),
        "a storage in a zip file": Calls(torch.storage._load_from_bytes, _saved({"a": touch})),
        "a storage that is a pickle": Calls(torch.storage._load_from_bytes, pickle.dumps(touch)),
        "torch.load": Calls(torch.load, mark),
        "state of a dictionary": SetsState({"a": touch}),
        "builtins": Calls(builtins.print, touch),
        "a constructor": Calls(torch.nn.Linear, touch, 2),
    }


def _saved(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


@pytest.mark.parametrize("kind", sorted(evil(Path())))
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_is_executed(kind: str, protocol: int, tmp_path: Path) -> None:
    content = pickle.dumps(evil(tmp_path)[kind], protocol=protocol)
    with pytest.raises(PriorError, match=r"refused"):
        read_pickle(content)
    assert not list(tmp_path.iterdir())


def test_the_evil_ones_are_evil(tmp_path: Path) -> None:
    """The side effect that the test above looks for is real under Python's own reader."""
    pickle.loads(pickle.dumps(evil(tmp_path)["nested in a list"]))
    assert (tmp_path / "executed").exists()


def test_the_refused_name_is_in_the_sentence() -> None:
    with pytest.raises(PriorError, match=r"names 'posix\.system'"):
        read_pickle(pickle.dumps(Calls(os.system, "true")))


def raw(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


@pytest.mark.parametrize(
    "content",
    [
        raw(b"(S'true'\nios\nsystem\n"),  # INST
        raw(b"(cos\nsystem\nS'true'\no"),  # OBJ
        raw(b"\x82\x01"),  # EXT1
        raw(b"Psomewhere\n"),  # PERSID
        raw(b"K\x01Q"),  # BINPERSID
        raw(b"\x97"),  # NEXT_BUFFER
        raw(b"\x8c\x0bcollections\x8c\x0bOrderedDict\x93\x8c\x01a\x8c\x01bs"),  # attribute of a class
        raw(b"\x8c\x0bcollections\x8c\x0bOrderedDict\x93}b"),  # state of a class
        raw(b"\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93)R"),  # a dotted name
        raw(b"\x8c\x05torch\x8c\x0cnn.functional\x93"),
        raw(b"\x8c\x05torch\x8c\x04onnx\x93"),  # a module that torch would import on being asked
        raw(b"\x8c\x17torch.nn.modules.linear\x8c\x06Linear\x93)R"),  # a layer's constructor
        raw(b"K\x01)R"),  # calling a number
    ],
)
def test_instructions_no_snapshot_needs_are_refused(content: bytes) -> None:
    with pytest.raises(PriorError, match=r"refused"):
        read_pickle(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04",
        b"\x80\x04.",
        b"not a pickle",
        raw(b"h\x05"),  # a memory cell that was never filled
        raw(b"u"),  # no mark
        raw(b"R"),
        raw(b"\x8e" + struct.pack("<Q", 2**62)),  # bytes without end
        raw(b"\x8e" + struct.pack("<Q", 2**40)),
        raw(b"\x8b" + struct.pack("<i", -5)),
        pickle.dumps({"a": [1, 2, 3]})[:-4],
        b"PK\x03\x04" + bytes(30),
    ],
)
def test_damage_is_told_as_damage(content: bytes) -> None:
    with pytest.raises(PriorError, match=r"damaged|refused"):
        read_pickle(content)


def test_keys_that_take_forever_to_hash_are_refused() -> None:
    """Sixty doublings of a tuple by reference: 2^60 steps to hash, a second to refuse."""
    body = b"K\x01\x94"
    for number in range(60):
        body += b"h" + bytes([number]) + b"\x86\x94"
    with pytest.raises(PriorError, match=r"key: refused"):
        read_pickle(raw(b"}" + body + b"K\x01s"))


def test_references_do_not_multiply_what_is_read() -> None:
    """A billion laughs by reference stays as small as its file."""
    laughs: Any = ["ha"]
    for _ in range(60):
        laughs = [laughs, laughs]
    back = read_pickle(pickle.dumps(laughs))
    assert back[0] is back[1]


STORAGE = torch.ones(16 * 1024)._typed_storage()
TENSOR = (STORAGE, 0, (16 * 1024,), (1,), False, None)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (torch.storage._load_from_bytes, STORAGE.__reduce__()[1]),
        (torch._utils._rebuild_tensor_v2, TENSOR),
        (OrderedDict, ([(str(n), n) for n in range(1000)],)),
        (set, (list(range(1000)),)),
        (codecs.encode, ("a" * 65536, "latin1")),
        (torch.Size, ([1] * 5000,)),
    ],
)
def test_a_call_repeated_on_the_same_arguments_is_refused(protocol: int, function: Any, arguments: Any) -> None:
    """Three bytes each would make kilobytes anew, gigabytes in all."""
    calls = [Again(function, arguments) for _ in range(2000)]
    content = pickle.dumps(calls, protocol=protocol)
    assert len(content) < 400_000
    with pytest.raises(PriorError, match=r"far more than its size can hold"):
        read_pickle(content)
    read_pickle(pickle.dumps(calls[:2], protocol=protocol))


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((2**20, 2**20), (0, 0), 0),
        ((3,), (1,), 2),
        ((2,), (-1,), 1),
        ((2, 2), (1,), 0),
        ((2,), (1,), -1),
        ((2**62, 4), (1, 1), 0),
        ((True,), (1,), 0),
    ],
)
def test_tensors_larger_than_their_numbers_are_refused(size: Any, stride: Any, offset: int) -> None:
    storage = torch.ones(4)._typed_storage()
    with pytest.raises(PriorError, match=r"tensor"):
        read_pickle(
            pickle.dumps(Calls(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, None))
        )


def test_storages_of_another_length_than_stated_are_refused() -> None:
    content = pickle.dumps(torch.ones(4))
    count = struct.pack("<q", 4)
    assert content.count(count) == 1
    for wrong in (5, -1, 2**60):
        with pytest.raises(PriorError, match=r"length"):
            read_pickle(content.replace(count, struct.pack("<q", wrong)))
