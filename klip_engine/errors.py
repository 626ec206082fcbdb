"""Typed errors: one sentence for the user each, with the cure; the command line maps them to exit codes."""


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
    """Memory or the compute device gave out."""

    exit_code = 5
