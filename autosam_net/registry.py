"""Named things that a third party can add to."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from autosam_net.errors import UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """A table from name to thing, filled by a decorator.

    HEADS: Registry[HeadBuilder] = Registry("head")

    @HEADS.register("linear")
    def build_linear(...): ...
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters its argument under `name`; a name can be taken once."""

        def enter(thing: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = thing
            return thing

        return enter

    def get(self, name: str) -> T:
        """Return the thing called `name`.

        Raises:
            UsageError: nothing is called so; the message offers the nearest names.
        """
        if name not in self._entries:
            raise UsageError(f"unknown {self.kind} {name!r}; {suggest(name, self)}")
        return self._entries[name]

    def names(self) -> list[str]:
        """Return all names in the order of registration."""
        return list(self)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)


def suggest(name: str, known: object) -> str:
    """Return "did you mean ...?" with the nearest of `known`, or the list of all of them."""
    names = [str(entry) for entry in known]  # type: ignore[attr-defined]
    near = difflib.get_close_matches(name, names, n=2)
    if near:
        return f"did you mean {' or '.join(repr(entry) for entry in near)}?"
    return f"known: {', '.join(names) if names else 'none'}"
