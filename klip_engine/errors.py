"""Typed errors: one sentence for the user each, with the cure; the command line maps them to exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class KlipError(Exception):
    """Base of every error the engine raises on purpose; `exit_code` is the command line's (docs/cli.md)."""

    exit_code = 1


class UsageError(KlipError):
    """The caller asked for something that does not exist or does not fit together."""

    exit_code = 2


class InputError(KlipError):
    """The input cannot be read or must not be processed; the sentence names the file and the cure."""

    exit_code = 3


class PriorError(InputError):
    """A prior bundle is missing, damaged or of another schema version."""


class Cancelled(KlipError):
    """The caller asked to stop; nothing was written."""

    exit_code = 4


class ResourceError(KlipError):
    """Memory or the compute device gave out or is not there."""

    exit_code = 5


@contextmanager
def resource_errors() -> Iterator[None]:
    """Turn what Python, torch and SimpleITK raise when memory or the device gives out into ResourceError."""
    try:
        yield
    except MemoryError as error:
        raise ResourceError(_MEMORY) from error
    except RuntimeError as error:
        text = str(error).lower()
        if any(word in text for word in ("out of memory", "can't allocate", "failed to allocate", "bad alloc")):
            raise ResourceError(_MEMORY) from error
        if "cuda error" in text or "cudnn" in text:
            raise ResourceError("the compute device failed; try again with the device cpu") from error
        raise


_MEMORY = "the memory gave out; lower batch_slices, choose another device or close other programs"
