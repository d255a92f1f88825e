"""Batches drawn ahead are those that would be drawn in turn, and their errors arrive."""

from __future__ import annotations

import threading
from contextlib import closing
from itertools import islice

import numpy as np
import pytest
import torch

from autosam_net.training.ahead import drawn_ahead


def draw(number: int) -> tuple[torch.Tensor, None, np.random.Generator]:
    """Return what a number gives, in the shapes that training draws."""
    if number == 12:
        raise OSError("the disk is gone")
    rng = np.random.default_rng(number)
    return torch.from_numpy(rng.random(3)), None, rng


@pytest.mark.parametrize("processes", [0, 2])
def test_order_and_content_are_those_of_drawing_in_turn(processes: int) -> None:
    with closing(drawn_ahead(draw, 5, processes)) as drawn:
        for number, (values, nothing, rng) in zip(range(5, 9), drawn, strict=False):
            expected, _, state = draw(number)
            assert torch.equal(values, expected) and nothing is None
            assert rng.random() == state.random()  # where the loss goes on


@pytest.mark.parametrize("processes", [0, 2])
def test_an_error_arrives_in_its_turn(processes: int) -> None:
    with closing(drawn_ahead(draw, 10, processes)) as drawn:
        assert len(list(islice(drawn, 2))) == 2
        with pytest.raises(OSError, match="the disk is gone"):
            next(drawn)


def test_the_next_one_is_drawn_while_one_is_used() -> None:
    begun = [threading.Event() for _ in range(9)]

    def note(number: int) -> int:
        begun[number].set()
        return number

    with closing(drawn_ahead(note, 0)) as drawn:
        assert next(drawn) == 0
        assert begun[1].wait(10)
        assert not begun[2].is_set()
