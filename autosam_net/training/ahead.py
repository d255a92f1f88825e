"""Batches that are drawn while the one before is learnt from, so that training never waits for data."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

Item = TypeVar("Item")


def drawn_ahead(draw: Callable[[int], Item], first: int, processes: int = 0) -> Generator[Item, None, None]:
    """Yield `draw(first)`, `draw(first + 1)` and so on without end, the next ones drawn meanwhile; close it when done.

    A draw must depend on its number alone: then it is the same ahead of time, in another thread or process.

    Args:
        processes: that draw; 0 for a thread of this process, which is enough for reading. Augmenting is Python's work
            and would stand in the way of the training there.
    """
    return _by_processes(draw, first, processes) if processes else _by_a_thread(draw, first)


def _by_a_thread(draw: Callable[[int], Item], first: int) -> Generator[Item, None, None]:
    with ThreadPoolExecutor(1, "batches") as thread:
        following = thread.submit(draw, first)
        for number in itertools.count(first + 1):
            drawn, following = following.result(), thread.submit(draw, number)
            yield drawn


def _by_processes(draw: Callable[[int], Item], first: int, processes: int) -> Generator[Item, None, None]:
    numbers = itertools.count(first)
    # a generator of its own: torch's goes on as it would without
    yield from DataLoader(
        _Draws(draw),
        sampler=numbers,
        batch_size=None,
        num_workers=processes,
        collate_fn=_as_it_is,
        generator=torch.Generator(),
    )


class _Draws(Dataset[Any]):
    """What a draw gives, by its number."""

    def __init__(self, draw: Callable[[int], Any]) -> None:
        self.draw = draw

    def __getitem__(self, number: int) -> Any:
        return self.draw(number)


def _as_it_is(drawn: Item) -> Item:
    return drawn
