"""TOML tables to frozen dataclasses: every mistake is one sentence that names the key by its full path."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from klip_engine.errors import InputError

T = TypeVar("T")

_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}


def read_table(kind: type[T], table: Any, where: str, base: Path) -> T:
    """The dataclass `kind` from a TOML table; where: the table's path in the file, for the sentences.

    base: the folder that relative paths start from. Field types may be str, int, float, bool, Path, Literal,
    another dataclass, `X | None`, and tuple[X, ...] of these.
    Raises InputError for unknown and missing keys and values of another type.
    """
    if not isinstance(table, dict):
        raise InputError(f"{where} has to be a table, [{where}]")
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            raise InputError(f"{_key(where, key)} is not a setting; known are {', '.join(fields)}")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in table:
            values[name] = _value(hints[name], table[name], _key(where, name), base)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(f"{_key(where, name)} is missing")
    return kind(**values)


def _key(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _value(kind: Any, value: Any, where: str, base: Path) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _value(next(one for one in inner if one is not type(None)), value, where, base)
    if origin is Literal:
        if value not in inner:
            raise InputError(f"{where} has to be one of {', '.join(map(str, inner))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(f"{where} has to be a list, in square brackets")
        return tuple(_value(inner[0], one, f"{where}[{k}]", base) for k, one in enumerate(value))
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return read_table(kind, value, where, base)
    return _scalar(kind, value, where, base)


def _scalar(kind: Any, value: Any, where: str, base: Path) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, str if kind is Path else kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{where} has to be {_NAMES[kind]}")
    if kind is Path:
        if not value.strip():
            raise InputError(f"{where} is empty; name a path")
        return (base / Path(value).expanduser()).resolve()
    return value
