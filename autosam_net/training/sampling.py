"""Which inputs a batch takes, so that a class in few slices is not drowned."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from autosam_net.data.labels import LabelSet

FOREGROUND_SHARE = 0.67
"""Share of a batch drawn for a class, each class alike."""


class BalancedDraw:
    """Draws numbers of inputs, two thirds of them for a class that the input has."""

    def __init__(self, present: Sequence[Collection[int]], labels: LabelSet) -> None:
        """Prepare to draw.

        Args:
            present: for each input, the label values that occur in it.
        """
        self.count = len(present)
        by_target = [
            [index for index, values in enumerate(present) if set(values) & set(wanted)]
            for wanted in labels.targets.values()
        ]
        self.inputs_of_target = [np.array(inputs) for inputs in by_target if inputs]

    def draw(self, rng: np.random.Generator, size: int) -> list[int]:
        """Return `size` numbers of inputs."""
        return [self._draw_one(rng) for _ in range(size)]

    def _draw_one(self, rng: np.random.Generator) -> int:
        if self.inputs_of_target and rng.random() < FOREGROUND_SHARE:
            return int(rng.choice(self.inputs_of_target[rng.integers(len(self.inputs_of_target))]))
        return int(rng.integers(self.count))
