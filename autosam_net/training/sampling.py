"""Which inputs a batch takes, so that a class in few slices is not drowned."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from autosam_net.data.labels import LabelSet

SEEDS = 2**32
FOREGROUND_SHARE = 0.67
"""Share of a batch drawn for a class, each class alike."""


@dataclass(frozen=True)
class Drawn:
    """One input of a batch.

    Attributes:
        wanted: label values for which it was drawn, none if for no class.
        seed: of what else is random about it: the part that is shown, or how it is augmented.
    """

    number: int
    wanted: tuple[int, ...]
    seed: int


class BalancedDraw:
    """Draws numbers of inputs, two thirds of them for a class that the input has."""

    def __init__(self, present: Sequence[Collection[int]], labels: LabelSet) -> None:
        """Prepare to draw.

        Args:
            present: for each input, the label values that occur in it.
        """
        self.count = len(present)
        by_target = [
            (wanted, [index for index, values in enumerate(present) if set(values) & set(wanted)])
            for wanted in labels.targets.values()
        ]
        self.of_target = [(wanted, np.array(inputs)) for wanted, inputs in by_target if inputs]

    def draw(self, rng: np.random.Generator, size: int) -> list[Drawn]:
        """Return `size` inputs."""
        return [Drawn(*self._draw_one(rng), int(rng.integers(SEEDS))) for _ in range(size)]

    def _draw_one(self, rng: np.random.Generator) -> tuple[int, tuple[int, ...]]:
        if self.of_target and rng.random() < FOREGROUND_SHARE:
            wanted, inputs = self.of_target[rng.integers(len(self.of_target))]
            return int(rng.choice(inputs)), wanted
        return int(rng.integers(self.count)), ()
