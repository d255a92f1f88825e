"""How sure a prediction is of itself, from its probabilities alone: maps of uncertainty, and two figures a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.labels import LabelSet

Probabilities = NDArray[np.floating]
"""`(outputs, ...)`: background and classes, which sum to one, or a sigmoid a region."""

TINY = 1e-7  # below what float32 tells from zero beside one


def entropy(probabilities: Probabilities, labels: LabelSet) -> NDArray[np.float32]:
    """Return the entropy `(...)` of each pixel as a fraction of the largest possible: 0 is sure, 1 knows nothing.

    Of regions, which are independent of each other, it is the mean of theirs.
    """
    return _entropies(probabilities, labels).mean(axis=0)


def disagreement(members: Sequence[Probabilities], labels: LabelSet) -> NDArray[np.float32]:
    """Return how far each pixel's uncertainty comes from members that contradict each other, `(...)`, 0 to 1.

    It is the mutual information between label and member: the entropy of the mean less the mean of the entropies
    (Depeweg et al., ICML 2018; BALD, Houlsby et al., arXiv 1112.5745), in the unit of `entropy`. Members that are
    unsure in the same way have none.
    """
    own = sum(entropy(member, labels) for member in members) / len(members)
    return np.maximum(entropy(np.mean(members, axis=0), labels) - own, 0.0)


def _entropies(probabilities: Probabilities, labels: LabelSet) -> NDArray[np.float32]:
    """Return `(1, ...)` for classes, `(regions, ...)` for regions."""
    known = np.clip(probabilities, TINY, 1.0).astype(np.float32, copy=False)
    own = -known * np.log(known)
    if not labels.has_regions:
        return own.sum(axis=0, keepdims=True) / np.float32(np.log(labels.outputs))
    rest = np.clip(1.0 - known, TINY, 1.0)
    return (own - rest * np.log(rest)) / np.float32(np.log(2))


def _decided(probabilities: Probabilities) -> NDArray[np.bool_]:
    """Return for each class the pixels that are decided for it: of equal ones for the first, as argmax does.

    Plane by plane, which is several times as fast as argmax and counting.
    """
    inside = probabilities == probabilities.max(axis=0)
    free = ~inside[0]
    for plane in inside[1:]:
        plane &= free
        free &= ~plane
    return inside


@dataclass(frozen=True)
class Confidence:
    """What one head's prediction of a class in a case says of itself.

    Attributes:
        agreement: soft Dice of the class's probabilities with the pixels decided for it, 0 to 1.
        certainty: 1 less the mean entropy of these pixels, 0 to 1.
    """

    agreement: float
    certainty: float


class ConfidenceTally:
    """Adds up, slice by slice, what the confidences of a case need; post-processing is left out."""

    def __init__(self, labels: LabelSet) -> None:
        self.labels = labels
        self._sums = np.zeros((4, len(labels.targets)))  # probability, overlap, pixels, entropy

    def add(self, probabilities: Probabilities) -> None:
        """Add a slice `(outputs, Y, X)`."""
        regions = self.labels.has_regions
        foreground = probabilities if regions else probabilities[1:]
        inside = probabilities > 0.5 if regions else _decided(probabilities)[1:]
        found = np.flatnonzero(inside.any(axis=0))  # few pixels; the others have no overlap and no entropy to add
        chances = probabilities.reshape(len(probabilities), -1).take(found, axis=1)
        decided = inside.reshape(len(inside), -1).take(found, axis=1)
        self._sums += [
            foreground.sum(axis=2).sum(axis=1, dtype=float),
            (chances[-len(decided) :] * decided).sum(axis=1, dtype=float),
            decided.sum(axis=1),
            (_entropies(chances, self.labels) * decided).sum(axis=1, dtype=float),
        ]

    def confidences(self) -> dict[str, Confidence | None]:
        """Return class -> confidence of what was added, None where no pixel was decided for the class."""
        result: dict[str, Confidence | None] = {}
        for name, (probability, overlap, pixels, unsure) in zip(self.labels.targets, self._sums.T, strict=True):
            found = Confidence(2 * overlap / (probability + pixels), 1 - unsure / pixels) if pixels else None
            result[name] = found
        return result
