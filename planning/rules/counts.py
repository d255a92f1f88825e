"""Counts that several rules share."""

from __future__ import annotations

import math


def training_share(count: int, folds: int) -> int:
    """Return how many of `count` are in the training part of one of `folds` folds."""
    return count * (folds - 1) // folds if folds > 1 else count


def round_down(value: float) -> int:
    """Return a count with two digits, so that a noisy measurement gives the same plan again."""
    if value < 1:
        return 0
    power = 10 ** max(math.floor(math.log10(value)) - 1, 0)
    return int(value // power * power)
