"""Pickles as data: an interpreter of the pickle language that has no means to call or import anything.

Python's own unpickler builds objects by calling what the file names; published network snapshots rely on that and
even bring the source code of their classes. Here a global is only ever a name. The few that describe data (tensors,
ordered dictionaries, numpy scalars) are understood, objects of network classes become inert `Record`s, every other
name and every instruction not listed below is refused with a sentence. Language: `pickletools` of the standard
library, protocols 2 to 5; tensors: PyTorch's legacy storage format, the one that plain pickles hold.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch

from klip_engine.errors import PriorError

_MOST_INSTRUCTIONS = 5_000_000
_STORAGE_TYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_DTYPES = {str(dtype) for dtype in _STORAGE_TYPES.values()}  # compared as text: asking torch for a name may import
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
_MARK = object()
_ITEM = 100
"""Bytes, about, of an entry of a dictionary or set."""


@dataclass(frozen=True)
class Name:
    """A global the file mentions: never looked up."""

    text: str


@dataclass
class Record:
    """An object the file would have built: its class by name, its state as data."""

    class_name: str
    state: Any = None


@dataclass(frozen=True)
class Storage:
    """Numbers of a tensor: a flat tensor on the CPU."""

    values: torch.Tensor


def read_pickle(content: bytes) -> Any:
    """What a pickle describes: plain containers and numbers, tensors, `Record`s, `Name`s.

    Containers may share parts and contain themselves, as in any pickle: whoever walks them must count steps.
    Raises PriorError, naming what is refused, for anything but data; nothing of the file is ever executed.
    """
    return _Reader(io.BytesIO(content), _Allowance(4 * len(content) + 2**20)).read()


class _Allowance:
    """Bytes that a pickle may still have made: it can ask for the same tensor again and again in a few bytes.

    A snapshot needs three times its numbers: as bytes, as a storage, and as a tensor.
    """

    def __init__(self, most: int) -> None:
        self._left = most

    def spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise PriorError("the pickle describes far more than its size can hold: refused")


class _Reader:
    """One run of the interpreter over a stream; afterwards the stream stands behind the STOP instruction."""

    def __init__(
        self, stream: io.BytesIO, allowance: _Allowance, persistent: Callable[[Any], Any] | None = None
    ) -> None:
        self._stream, self._allowance, self._persistent = stream, allowance, persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> Any:
        try:
            for number, (opcode, argument, _) in enumerate(pickletools.genops(self._stream)):
                if number > _MOST_INSTRUCTIONS:
                    raise PriorError("the pickle has too many instructions for a network snapshot: refused")
                if opcode.name == "STOP":
                    return self._stack.pop()
                self._step(opcode.name, argument)
        except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError, struct.error) as error:
            raise PriorError(f"the pickle is damaged or no network snapshot, refused: {error}") from error
        raise PriorError("the pickle is damaged: it ends too early")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _VALUES:
            stack.append(argument)
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            stack.append(tuple(self._to_mark()))
        elif name == "FROZENSET":
            stack.append(frozenset(_keys(self._to_mark())))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self._to_mark()
            _expect(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self._to_mark()
            _expect(stack[-1], dict).update(zip(_keys(items[::2]), items[1::2], strict=True))
        elif name == "ADDITEMS":
            items = self._to_mark()
            _expect(stack[-1], set).update(_keys(items))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "GLOBAL":
            stack.append(_name(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            module, qualified = stack.pop(-2), stack.pop()
            stack.append(_name(_expect(module, str), _expect(qualified, str)))
        elif name == "REDUCE":
            called, arguments = stack.pop(-2), stack.pop()
            stack.append(_build(_expect(called, Name).text, _expect(arguments, tuple), self._allowance))
        elif name == "NEWOBJ":
            called, arguments = stack.pop(-2), stack.pop()
            stack.append(_new(_expect(called, Name).text, _expect(arguments, tuple)))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], Record):
                stack[-1].state = state
            elif not isinstance(stack[-1], _DType | dict):
                raise PriorError("the pickle sets the state of something that has none: refused")
        elif name == "BINPERSID" and self._persistent is not None:
            stack.append(self._persistent(stack.pop()))
        else:
            raise PriorError(f"the pickle uses the instruction {name}, which no network snapshot needs: refused")

    def _to_mark(self) -> list[Any]:
        for place in range(len(self._stack) - 1, -1, -1):
            if self._stack[place] is _MARK:
                items = self._stack[place + 1 :]
                del self._stack[place:]
                return items
        raise IndexError("a mark is missing")


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}


@dataclass(frozen=True)
class _DType:
    """A numpy scalar type by its code, as in 'f8'."""

    code: str


def _name(module: str, qualified: str) -> Name:
    """A global, if it is one that describes data."""
    module = {"__builtin__": "builtins", "numpy._core.multiarray": "numpy.core.multiarray"}.get(module, module)
    text = f"{module}.{qualified}"
    is_storage = module == "torch" and qualified in _STORAGE_TYPES
    is_layer = module.startswith("torch.nn.modules.") and qualified.isidentifier()
    is_dtype = text in _DTYPES
    if not (text in _BUILDERS or text in _ALLOCATING or text in _CLASSES or is_storage or is_layer or is_dtype):
        raise PriorError(f"the pickle names '{text[:200]}', which is neither a tensor nor a container: refused")
    return Name(text)


def _new(class_name: str, arguments: tuple[Any, ...]) -> Any:
    """An object made without a constructor: a dictionary, or a record of a network's layer."""
    if class_name in _CLASSES:
        return {}
    if not class_name.startswith("torch.nn.modules.") or arguments:
        raise PriorError(f"the pickle makes an object of '{class_name}': refused")
    return Record(class_name.rsplit(".", 1)[1])


def _build(called: str, arguments: tuple[Any, ...], allowance: _Allowance) -> Any:
    """What calling one of the known names would give, worked out from the arguments instead."""
    if called in _ALLOCATING:
        return _ALLOCATING[called](allowance, *arguments)
    if called not in _BUILDERS:
        raise PriorError(f"the pickle calls '{called}': refused")
    return _BUILDERS[called](*arguments)


def _persistent_object(meta: Any) -> Record:
    """A module of the published networks: the class's name and state, without its source code."""
    meta = _expect(meta, dict)
    return Record(_expect(meta["class_name"], str), _expect(meta["state"], dict))


def _dictionary(allowance: _Allowance, pairs: Any = ()) -> dict[Any, Any]:
    allowance.spend(_ITEM * len(_expect(pairs, tuple | list)))
    items = [_expect(pair, tuple | list) for pair in pairs]
    return dict(zip(_keys([key for key, _ in items]), [value for _, value in items], strict=True))


def _set(allowance: _Allowance, items: Any = ()) -> set[Any]:
    allowance.spend(_ITEM * len(_expect(items, tuple | list)))
    return set(_keys(items))


def _size(allowance: _Allowance, sizes: Any = ()) -> tuple[Any, ...]:
    allowance.spend(_ITEM * len(_expect(sizes, tuple | list)))
    return tuple(sizes)


def _bytes(allowance: _Allowance, text: Any, _: Any) -> bytes:
    """`_codecs.encode`, how protocol 2 writes bytes."""
    allowance.spend(len(_expect(text, str)))
    encoded: bytes = text.encode("latin1")
    return encoded


def _tensor(
    allowance: _Allowance,
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    hooks: Any = None,
    *_: Any,
) -> torch.Tensor:
    """`torch._utils._rebuild_tensor_v2` of PyTorch, with its bounds checked."""
    values = _expect(storage, Storage).values
    size, stride = _expect(size, tuple), _expect(stride, tuple)
    if not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)) or len(size) != len(stride):
        raise PriorError("the pickle holds a tensor with an impossible shape: refused")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    count = math.prod(size)
    if count and (last >= len(values) or count > len(values)):
        raise PriorError("the pickle holds a tensor that is larger than its numbers: refused")
    allowance.spend(count * values.element_size())
    return values.as_strided(size, stride, offset).clone() if count else values.new_empty(size)


def _storage(allowance: _Allowance, blob: Any) -> Storage:
    """`torch.storage._load_from_bytes`: four small pickles, then a count (int64) and the raw numbers."""
    allowance.spend(len(_expect(blob, bytes | bytearray)))
    stream = io.BytesIO(bytes(blob))
    if _Reader(stream, allowance).read() != _LEGACY_MAGIC:
        raise PriorError("the pickle holds numbers that are not in PyTorch's legacy storage format: refused")
    for _ in ("format version", "word sizes"):
        _Reader(stream, allowance).read()
    kind, view = _Reader(stream, allowance, _storage_reference).read()
    _Reader(stream, allowance).read()  # the list of keys: one storage, one key
    dtype = _STORAGE_TYPES[kind]
    if view is not None or not (header := stream.read(8)):
        raise PriorError("the pickle holds a storage that is a view of another: refused")
    (count,) = struct.unpack("<q", header)
    raw = bytearray(stream.read())
    if count < 0 or len(raw) != count * dtype.itemsize:
        raise PriorError("the pickle holds a storage of another length than it states: refused")
    return Storage(torch.frombuffer(raw, dtype=dtype) if count else torch.empty(0, dtype=dtype))


def _storage_reference(reference: Any) -> tuple[str, Any]:
    """Type and view of ('storage', type, key, device, count, view)."""
    tag, kind, _, _, _, view = _expect(reference, tuple)
    if tag != "storage":
        raise PriorError("the pickle refers to something outside of it: refused")
    return _expect(kind, Name).text.removeprefix("torch."), view


def _dtype(code: Any, *_: Any) -> _DType:
    return _DType(_expect(code, str))


def _scalar(dtype: Any, raw: Any) -> float | int | bool:
    """A numpy scalar as a Python number."""
    codes = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i", "b1": "<?"}
    (value,) = struct.unpack(codes[_expect(dtype, _DType).code], _expect(raw, bytes))
    return value


_BUILDERS: dict[str, Callable[..., Any]] = {
    _PERSISTENT: _persistent_object,
    "torch._utils._rebuild_parameter": lambda data, *_: _expect(data, torch.Tensor),
    "torch.device": lambda *where: Record("device", where),
    "numpy.dtype": _dtype,
    "numpy.core.multiarray.scalar": _scalar,
}
_ALLOCATING: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dictionary,
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "dnnlib.util.EasyDict": _dictionary,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.storage._load_from_bytes": _storage,
    "_codecs.encode": _bytes,
    "torch.Size": _size,
}
"""Those whose result is new memory."""
_CLASSES = {"dnnlib.util.EasyDict", "collections.OrderedDict"}


def _keys(items: list[Any] | tuple[Any, ...]) -> list[Hashable]:
    """Keys of dictionaries, members of sets: text and numbers only; hashing nested tuples can take forever."""
    for item in items:
        if not isinstance(item, str | int | float | bytes | None):
            raise PriorError("the pickle uses something other than text or a number as a key: refused")
    return list(items)


def _expect(value: Any, kind: Any) -> Any:
    """The value, if it is of a kind; a pickle that puts something else there is no network snapshot."""
    if not isinstance(value, kind):
        raise PriorError("the pickle puts something in a place where it does not belong: refused")
    return value
