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
        self.targets = [
            (np.array(inputs), tuple(values))
            for inputs, values in zip(by_target, labels.targets.values(), strict=True)
            if inputs
        ]

    def draw(self, rng: np.random.Generator) -> tuple[int, tuple[int, ...]]:
        """Return the number of an input, and the label values that it was drawn for, none if for no class."""
        if self.targets and rng.random() < FOREGROUND_SHARE:
            inputs, values = self.targets[rng.integers(len(self.targets))]
            return int(rng.choice(inputs)), values
        return int(rng.integers(self.count)), ()
