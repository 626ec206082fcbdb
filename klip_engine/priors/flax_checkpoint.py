"""Checkpoints of flax: one msgpack file, or an Orbax folder, read as a flat dictionary of arrays.

- flax.training.checkpoints writes one msgpack file (`checkpoint_101`): nested maps, arrays as extension type 1
  (shape, type name, bytes), numpy scalars as type 3, arrays beyond a gigabyte in chunks.
- Orbax writes a folder: `_METADATA` or a msgpack file `checkpoint` describes the tree, the arrays lie in zarr
  arrays, each in a folder of its own or all in one OCDBT store (`manifest.ocdbt`). Needs `tensorstore`.

Neither flax nor jax is needed; both extras of reading come with `pip install "klip-engine[import-flax]"`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from klip_engine.errors import PriorError

Array = npt.NDArray[Any]

_NDARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_DEEPEST = 64
_CHUNKED = "__msgpack_chunked_array__"
_TYPES = {"bool", "float16", "float32", "float64"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_DAMAGE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, OSError, RecursionError)
"""What msgpack, numpy and tensorstore raise on damaged files."""
_MOST_BYTES, _MOST_TIMES = 2**32, 1000
"""Of all arrays of an Orbax folder: what it may state, and how many times the size of its files."""
_INSTALL = 'pip install "klip-engine[import-flax]"'


def read_checkpoint(path: Path) -> dict[str, Array]:
    """The arrays of a checkpoint by their path in the tree, joined with slashes: `params_ema/Conv_0/kernel`.

    path: a msgpack file, an Orbax folder, or a folder that holds one of them as its only step. Raises PriorError
    with a sentence when it is none of these, damaged, or the package that reads it is not installed.
    """
    if not path.exists():
        raise PriorError(f"no such checkpoint: {path}")
    try:
        arrays = _flat(_msgpack_tree(path)) if path.is_file() else _orbax_arrays(_orbax_folder(path))
    except PriorError as error:
        raise PriorError(f"{path} cannot be imported: {error}") from error
    if not arrays:
        raise PriorError(f"{path} cannot be imported: it holds no arrays")
    return arrays


def _msgpack_tree(path: Path) -> Any:
    try:
        import msgpack
    except ImportError as error:
        raise PriorError(f"reading flax checkpoints needs msgpack: {_INSTALL}") from error
    try:
        content = path.read_bytes()
        return msgpack.unpackb(content, ext_hook=_extension, raw=False, strict_map_key=False)
    except (*_DAMAGE, msgpack.exceptions.UnpackException) as error:
        raise PriorError(f"it is damaged or no flax checkpoint ({_short(error)})") from error


def _extension(code: int, data: bytes) -> Any:
    """flax's own msgpack types."""
    import msgpack

    if code == _COMPLEX:
        return complex(*msgpack.unpackb(data))
    if code not in (_NDARRAY, _SCALAR):
        raise ValueError(f"extension type {code} is not one of flax's")
    shape, name, raw = msgpack.unpackb(data, raw=True)
    array = np.frombuffer(raw, dtype=_dtype(name.decode())).reshape(shape)
    return array[()] if code == _SCALAR else array


def _dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        try:
            import ml_dtypes
        except ImportError as error:
            raise PriorError(f"bfloat16 arrays need ml_dtypes: {_INSTALL}") from error
        return np.dtype(ml_dtypes.bfloat16)
    if name not in _TYPES:
        raise ValueError(f"arrays of type {name[:40]!r} are not numbers")
    return np.dtype(name)


def _flat(tree: Any, prefix: str = "", depth: int = 0) -> dict[str, Array]:
    """Leaves that are arrays or numbers, by path; other leaves are left out."""
    if depth > _DEEPEST:
        raise PriorError("its tree is too deep")
    if isinstance(tree, dict) and tree.get(_CHUNKED):
        return {prefix: _joined(tree)}
    if isinstance(tree, dict):
        parts = {str(name): part for name, part in tree.items()}
        below = {
            name: _flat(part, f"{prefix}/{name}" if prefix else name, depth + 1) for name, part in parts.items()
        }
        return {path: array for arrays in below.values() for path, array in arrays.items()}
    return {prefix: np.asarray(tree)} if isinstance(tree, np.ndarray | np.generic | int | float) else {}


def _joined(tree: dict[str, Any]) -> Array:
    """An array that flax split into flat chunks."""
    try:
        shape = [int(tree["shape"][str(axis)]) for axis in range(len(tree["shape"]))]
        chunks = [np.asarray(tree["chunks"][str(n)]).ravel() for n in range(len(tree["chunks"]))]
        return np.concatenate(chunks).reshape(shape)
    except _DAMAGE as error:
        raise PriorError("it is damaged: the chunks of an array do not fit its shape") from error


def _orbax_folder(path: Path) -> Path:
    """The folder with the arrays: the path itself, its item, or that of its only step."""
    for _ in range(4):
        if any((path / name).exists() for name in ("_METADATA", "manifest.ocdbt", "checkpoint")):
            return path
        inside = sorted(p for p in path.iterdir() if p.is_dir() and p.name not in ("metadata", "_strings.json"))
        if len(inside) != 1:
            break
        path = inside[0]
    names = ", ".join(p.name for p in inside[:8])
    raise PriorError(f"no Orbax checkpoint is in it, or several steps or items are ({names}); name one of them")


def _orbax_arrays(folder: Path) -> dict[str, Array]:
    try:
        import tensorstore
    except ImportError as error:
        raise PriorError(f"reading Orbax checkpoints needs tensorstore: {_INSTALL}") from error
    metadata = _orbax_metadata(folder)
    store: dict[str, Any] = {"driver": "file", "path": f"{folder.resolve()}/"}
    if (folder / "manifest.ocdbt").exists():
        store = {"driver": "ocdbt", "base": store}
    driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
    try:
        keys = [key.decode() for key in tensorstore.KvStore.open(store).result().list().result()]
        ends = (".zarray", "zarr.json")
        names = sorted(key.rsplit("/", 1)[0] for key in keys if key.endswith(tuple(f"/{end}" for end in ends)))
        stored = {
            name: tensorstore.open(
                {"driver": driver, "kvstore": _below(store, name)}, open=True, read=True
            ).result()
            for name in names
        }
        _check_stated(folder, stored)
        arrays = {name: np.asarray(array.read().result()) for name, array in stored.items()}
        return {_tree_path(name, metadata): array for name, array in arrays.items()}
    except _DAMAGE as error:
        raise PriorError(f"it is damaged ({_short(error)})") from error


def _check_stated(folder: Path, stored: dict[str, Any]) -> None:
    """Raise PriorError before arrays are read that are far larger than their files: what is missing of a zarr array
    is filled in, and a chunk is unpacked as a whole."""
    stated = 0
    for name, array in stored.items():
        dtype = str(array.dtype.name)
        if dtype != "bfloat16" and dtype not in _TYPES:
            raise ValueError(f"the array {name[:80]} is of type {dtype[:40]!r}, not of numbers")
        sides = (array.shape, array.chunk_layout.read_chunk.shape or ())
        stated += max(math.prod(shape) for shape in sides) * array.dtype.numpy_dtype.itemsize
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if stated > min(_MOST_BYTES, _MOST_TIMES * held):
        raise PriorError(
            f"its arrays would need {stated / 2**20:,.0f} MiB, and its files have {held / 2**20:,.3f} MiB: refused"
        )


def _below(store: dict[str, Any], name: str) -> dict[str, Any]:
    """A folder inside a key-value store."""
    return store | {"path": f"{store.get('path', '')}{name}/"}


def _orbax_metadata(folder: Path) -> dict[str, Any]:
    path = folder / "_METADATA"
    if not path.is_file():
        return {}
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PriorError("it is damaged: _METADATA is not JSON") from error
    return metadata if isinstance(metadata, dict) else {}


def _tree_path(name: str, metadata: dict[str, Any]) -> str:
    """Orbax joins the keys of the tree with dots; the metadata says where a key itself has one."""
    for entry in metadata.get("tree_metadata", {}).values():
        keys = [str(key["key"]) for key in entry["key_metadata"]]
        if ".".join(keys) == name:
            return "/".join(keys)
    return name.replace(".", "/")


def _short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
