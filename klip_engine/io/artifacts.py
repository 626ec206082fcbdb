"""Artifacts of the published KLIP pipeline: one .npz per image, the normalised updates of its posterior samples.

    normalized_updates   float [T, B, C, H, W]: kept steps, samples, channels, rows, columns
    g_values             float [T]: the diffusion coefficient each update was divided by

and what this engine adds, all of it optional: `sigma` [T], the noise level of each step; `body` [H, W], the pixels
of the patient; `settings`, a string of JSON. docs/published-artifacts.md describes the format.
"""

from __future__ import annotations

import io
import json
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from klip_engine.errors import InputError, UsageError
from klip_engine.files import write_file

BoolArray = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]

UPDATES, G_VALUES = "normalized_updates", "g_values"
ARCHIVE_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    SyntaxError,
    RuntimeError,
    tokenize.TokenError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""What zipfile and numpy raise on damaged files: numpy reads the head of an array with Python's own parser."""
_STEP_LIMIT = 2**30
"""Bytes of one kept step, and of any other array, above which a file is not what it claims to be."""


@dataclass(frozen=True)
class Artifact:
    """An artifact on the disk: all but the updates, which are read step by step.

    shape: (T, B, C, H, W); g_values: [T]; sigma: [T] or None; body: [H, W] or None; settings: of the run that
    wrote it, empty where it does not say.
    """

    path: Path
    shape: tuple[int, int, int, int, int]
    g_values: Float32
    sigma: Float32 | None = None
    body: BoolArray | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def updates(self, first: int = 0, last: int | None = None) -> Iterator[Float32]:
        """The kept steps [first, last) one after the other, each [B, C, H, W]; memory is that of one step.

        Raises InputError when the file is damaged there or an update is not finite.
        """
        last = self.shape[0] if last is None else last
        count = math.prod(self.shape[1:])
        with _reading(self.path) as archive, archive.open(f"{UPDATES}.npy") as stream:
            dtype, _ = _header(stream, self.path, UPDATES)
            stream.seek(first * count * dtype.itemsize, io.SEEK_CUR)
            for step in range(first, last):
                values = np.frombuffer(stream.read(count * dtype.itemsize), dtype=dtype)
                with np.errstate(over="ignore"):  # what overflows is infinite, and said to be
                    update = values.reshape(self.shape[1:]).astype(np.float32)
                if not np.isfinite(update).all():
                    raise InputError(f"{self.path}: step {step} of {UPDATES} is not finite; run its sampler again")
                yield update

    def load(self) -> Float32:
        """All updates at once, [T, B, C, H, W]; raises InputError as `updates` does."""
        return np.stack(list(self.updates()))


def open_artifact(path: Path) -> Artifact:
    """Look into an artifact; nothing in it is executed and no large array is read.

    Raises InputError, with one sentence, when it is no such file, incomplete or inconsistent.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no such file: {path}; give an .npz file with '{UPDATES}' and '{G_VALUES}'")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is not an .npz file, or its end is missing; copy or write it again")
    with _reading(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
        for name in (UPDATES, G_VALUES):
            if name not in names:
                held = ", ".join(sorted(names)) or "no arrays"
                raise InputError(f"{path} has no '{name}' (it holds {held}); it is not an artifact of KLIP")
        shape = _updates_shape(archive, path)
        g_values = _array(archive, path, G_VALUES, shape[:1])
        sigma = _array(archive, path, "sigma", shape[:1]) if "sigma" in names else None
        body = _array(archive, path, "body", shape[-2:]) > 0 if "body" in names else None
        settings = _settings(archive, path) if "settings" in names else {}
    return Artifact(path, shape, g_values, sigma, body, settings)


def write_artifact(
    path: Path,
    normalized_updates: npt.ArrayLike,
    g_values: npt.ArrayLike,
    *,
    sigma: npt.ArrayLike | None = None,
    body: npt.ArrayLike | None = None,
    settings: dict[str, Any] | None = None,
) -> Path:
    """Write an artifact, complete or not at all; arrays as in the module's docstring, stored as float32.

    Raises UsageError when they do not belong together or are not finite, or `path` cannot be written.
    """
    updates = np.asarray(normalized_updates, dtype=np.float32)
    if updates.ndim != 5 or not updates.size:
        raise UsageError(f"updates are [steps, samples, channels, height, width], not {updates.shape}")
    arrays = {UPDATES: updates, G_VALUES: np.asarray(g_values, dtype=np.float32)}
    if sigma is not None:
        arrays["sigma"] = np.asarray(sigma, dtype=np.float32)
    for name, array in arrays.items():
        if name != UPDATES and array.shape != updates.shape[:1]:
            raise UsageError(f"{name} has the shape {array.shape}; {len(updates)} steps need one value each")
        if not np.isfinite(array).all():
            raise UsageError(f"{name} is not finite; {path} was not written")
    extra: dict[str, npt.NDArray[Any]] = {}
    if body is not None:
        extra["body"] = np.asarray(body, dtype=np.uint8)
        if extra["body"].shape != updates.shape[-2:]:
            raise UsageError(f"the body {extra['body'].shape} and the updates {updates.shape} differ")
    if settings is not None:
        extra["settings"] = np.array(json.dumps(settings, allow_nan=False))
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays, **extra)
    return write_file(Path(path), stream.getvalue())


@contextmanager
def _reading(path: Path) -> Iterator[zipfile.ZipFile]:
    """The open archive; damage becomes InputError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except ARCHIVE_DAMAGE as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{path} is damaged or incomplete, write it again: {reason}") from error


def _header(stream: IO[bytes], path: Path, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """dtype and shape of a stored array; refuses what only a pickle could hold."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    if version not in readers:
        raise InputError(f"{path}: '{name}' is stored in a version of the .npy format nobody needs for numbers")
    shape, column_major, dtype = readers[version](stream)
    if dtype.hasobject:
        raise InputError(f"{path}: '{name}' holds Python objects, which are never loaded; save it as plain numbers")
    if column_major and len(shape) > 1:
        raise InputError(f"{path}: '{name}' is stored column by column; save numpy.ascontiguousarray of it")
    return dtype, shape


def _updates_shape(archive: zipfile.ZipFile, path: Path) -> tuple[int, int, int, int, int]:
    entry = archive.getinfo(f"{UPDATES}.npy")
    with archive.open(entry) as stream:
        dtype, shape = _header(stream, path, UPDATES)
        start = stream.tell()
    if len(shape) != 5:
        raise InputError(
            f"{path}: {UPDATES} has the shape {shape} and not [steps, samples, channels, rows, columns]"
        )
    if 0 in shape:
        raise InputError(f"{path}: {UPDATES} has the shape {shape}: there is nothing to score")
    if dtype.kind != "f":
        raise InputError(f"{path}: {UPDATES} holds {dtype} and not floating-point numbers")
    if math.prod(shape[1:]) * dtype.itemsize > _STEP_LIMIT:
        raise InputError(f"{path}: {UPDATES} has the shape {shape}: one step alone would need more than 1 GiB")
    if entry.file_size != start + math.prod(shape) * dtype.itemsize:
        raise InputError(f"{path}: {UPDATES} is shorter or longer than its shape {shape}; write the file again")
    steps, samples, channels, height, width = shape
    return steps, samples, channels, height, width


def _array(archive: zipfile.ZipFile, path: Path, name: str, shape: tuple[int, ...]) -> Float32:
    """A small array of numbers whose shape is known beforehand."""
    with archive.open(f"{name}.npy") as stream:
        dtype, stored = _header(stream, path, name)
        if stored != shape:
            raise InputError(f"{path}: '{name}' has the shape {stored}; with these updates it must be {shape}")
        if dtype.kind not in "fiub":
            raise InputError(f"{path}: '{name}' holds {dtype} and not numbers")
        values = np.frombuffer(stream.read(math.prod(shape) * dtype.itemsize), dtype=dtype).reshape(shape)
    array = values.astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError(f"{path}: '{name}' is not finite; write the file again")
    return array


def _settings(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    entry = archive.getinfo("settings.npy")
    with archive.open(entry) as stream:
        dtype, shape = _header(stream, path, "settings")
        if dtype.kind != "U" or shape != () or dtype.itemsize > _STEP_LIMIT:
            raise InputError(f"{path}: 'settings' is not a text; leave it out or store a string of JSON")
        text = str(np.frombuffer(stream.read(dtype.itemsize), dtype=dtype)[0])
    settings = json.loads(text)
    if not isinstance(settings, dict):
        raise InputError(f"{path}: 'settings' holds no settings; leave it out or store a JSON object")
    return settings
