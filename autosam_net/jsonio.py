"""Frozen dataclasses to JSON and back, strictly.

Reading checks every key and every type: a key that is unknown or missing and a value of the wrong type are
refused by name, so that a hand-edited file fails where the mistake is and not three steps later.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from autosam_net.errors import PlanError
from autosam_net.files import atomic_file, sha256_of_text
from autosam_net.registry import suggest

T = TypeVar("T")

SEAL = "checksum"  # last key of the records that nobody edits
PLAIN = {str, int, float, bool, type(None)}
SPARSE = {"sparse": True}  # metadata of a field that is left out while it has its default


def to_json(value: Any) -> Any:
    """Return `value` in terms of dict, list, str, int, float, bool and None.

    Knows dataclasses, mappings, sequences, paths, and numpy's scalars and arrays (through `tolist`).
    """
    if type(value) in PLAIN:
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        written = (field for field in dataclasses.fields(value) if not _is_left_out(value, field))
        return {field.name: to_json(getattr(value, field.name)) for field in written}
    if isinstance(value, Mapping):
        return {str(key): to_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _is_left_out(value: Any, field: dataclasses.Field[Any]) -> bool:
    return field.metadata == SPARSE and getattr(value, field.name) == field.default


def dumps(value: Any) -> str:
    """Return `value` as indented JSON text; NaN and infinities are refused."""
    return json.dumps(to_json(value), indent=2, allow_nan=False)


def canonical(value: Any) -> str:
    """Return one text per value (sorted keys, no spaces), fit for hashing."""
    return json.dumps(to_json(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(dumps(value) + "\n", encoding="utf-8")


def write_json_if_changed(path: Path, value: Any) -> bool:
    """Write `value` to `path` unless the file says just that already; return whether it was written."""
    if path.is_file() and path.read_bytes() == (dumps(value) + "\n").encode():
        return False
    write_json(path, value)
    return True


def sealed(record: Any) -> dict[str, Any]:
    """Return a record with a checksum of its content, for files that nobody edits; `load` compares it."""
    content = to_json(record)
    return {**content, SEAL: sha256_of_text(canonical(content))}


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        PlanError: the file is missing or is no JSON; the message names the place.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode()  # refuses 1e999, and half a surrogate pair
        return content
    except FileNotFoundError:
        raise PlanError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, a number too long, brackets too deep
        raise PlanError(f"{path}: not valid JSON ({error}). Correct the file or make it anew.") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def read_sealed(path: Path) -> Any:
    """Return the content of a JSON file without its checksum, which is compared where there is one.

    Raises:
        PlanError: as `read_json`, or the content is not what was sealed.
    """
    content = read_json(path)
    seal = content.pop(SEAL, None) if isinstance(content, dict) else None
    if seal is not None and seal != sha256_of_text(canonical(content)):
        raise PlanError(f"{path}: damaged, its checksum is wrong. Remove it and repeat what made it.")
    return content


def load(cls: type[T], path: Path) -> T:
    """Return the dataclass `cls` read from the JSON file `path`.

    Raises:
        PlanError: as `read_sealed` and `from_json`.
    """
    return from_json(cls, read_sealed(path), str(path))


def from_json(cls: Any, data: Any, where: str) -> Any:
    """Return `data` as the type `cls` (a dataclass, a container type or a plain type).

    Args:
        where: the place named in errors, such as a file and the keys below it.

    Raises:
        PlanError: an unknown or a missing key, or a value of the wrong type.
    """
    if dataclasses.is_dataclass(cls):
        return _read_dataclass(cls, data, where)
    origin, arguments = typing.get_origin(cls), typing.get_args(cls)
    if origin in (typing.Union, types.UnionType):
        return _read_union(arguments, data, where)
    if origin is tuple:
        return _read_tuple(arguments, data, where)
    if origin in (dict, Mapping):
        _expect(isinstance(data, dict), "an object", data, where)
        return {key: from_json(arguments[1], entry, f"{where}: {key}") for key, entry in data.items()}
    if origin is list:
        _expect(isinstance(data, list), "a list", data, where)
        return [from_json(arguments[0], entry, f"{where}: [{index}]") for index, entry in enumerate(data)]
    if origin is typing.Literal:
        _expect(data in arguments, f"one of {', '.join(map(repr, arguments))}", data, where)
        return data
    return _read_plain(cls, data, where)


def _read_dataclass(cls: Any, data: Any, where: str) -> Any:
    _expect(isinstance(data, dict), "an object", data, where)
    types_of = _types_of(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in data:
        if key not in fields:
            raise PlanError(f"{where}: unknown key {key!r}; {suggest(key, fields)}")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = from_json(types_of[name], data[name], f"{where}: {name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise PlanError(f"{where}: key {name!r} is missing")
    return cls(**values)


@functools.cache
def _types_of(cls: type) -> Mapping[str, Any]:
    return typing.get_type_hints(cls)


def _read_union(arguments: tuple[Any, ...], data: Any, where: str) -> Any:
    errors = []
    for choice in arguments:
        try:
            return from_json(choice, data, where)
        except PlanError as error:
            errors.append(error)
    raise errors[0]


def _read_tuple(arguments: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:
    _expect(isinstance(data, list), "a list", data, where)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(data)
    _expect(len(data) == len(arguments), f"a list of {len(arguments)}", data, where)
    return tuple(
        from_json(kind, entry, f"{where}: [{index}]")
        for index, (kind, entry) in enumerate(zip(arguments, data, strict=True))
    )


def _read_plain(cls: Any, data: Any, where: str) -> Any:
    if cls is Any:
        return data
    if cls is type(None):
        _expect(data is None, "null", data, where)
        return None
    if cls is Path:
        _expect(isinstance(data, str), "a path", data, where)
        return Path(data)
    if cls is float and isinstance(data, int) and not isinstance(data, bool):
        _expect(abs(data) <= sys.float_info.max, "a number", data, where)
        return float(data)
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    _expect(type(data) is cls, names.get(cls, cls.__name__), data, where)
    return data


def _expect(holds: bool, expected: str, found: Any, where: str) -> None:
    if not holds:
        raise PlanError(f"{where}: expected {expected}, found {json.dumps(found)[:80]}")
