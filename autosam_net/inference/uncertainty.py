"""What is gathered slice by slice while an ensemble predicts: its mean, confidences, and maps of uncertainty."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.case import CaseProperties
from autosam_net.data.labels import LabelSet
from autosam_net.evaluation.confidence import Confidence, ConfidenceTally, disagreement, entropy
from autosam_net.imageio import write_fractions
from autosam_net.inference.predict import resized
from autosam_net.preprocessing.geometry import restore_slices

MAPS_FOLDER = "uncertainty"  # not beside the label maps, where a map would be taken for one

Plane = NDArray[np.float32]


@dataclass(frozen=True)
class Watch:
    """Watches the members of an ensemble predict; of each map it holds one number a pixel, never the classes.

    Attributes:
        properties: of the case, with its grids.
        tallies: one a member.
        maps: "entropy" and, where members can contradict each other, "disagreement" -> planes `(Y, X)` float16.
    """

    labels: LabelSet
    properties: CaseProperties
    tallies: tuple[ConfidenceTally, ...]
    maps: Mapping[str, list[NDArray[np.float16]]] = field(default_factory=dict)

    def means(self, slices: Iterable[Sequence[Plane]]) -> Iterator[Plane]:
        """Yield the mean over the members of every slice, given on the preprocessed grid, on the cropped raw grid."""
        plane = self.properties.cropped_shape[1:]
        for members in slices:
            for tally, probabilities in zip(self.tallies, members, strict=True):
                tally.add(probabilities)
            mean = functools.reduce(np.add, members) / np.float32(len(members))  # np.mean would copy them together
            for name, planes in self.maps.items():
                found = entropy(mean, self.labels) if name == "entropy" else disagreement(members, self.labels)
                planes.append(resized(found[None], plane)[0].astype(np.float16))
            yield resized(mean, plane)

    def recorded(self, slices: Iterable[Sequence[Plane]], paths: Mapping[str, Path]) -> Iterator[Plane]:
        """Yield the means, and write the maps after the last one: a label map that is made of them comes later."""
        yield from self.means(slices)
        self.write_maps(paths)

    def confidences(self) -> list[dict[str, Confidence | None]]:
        """Return the confidences of each member's own prediction."""
        return [tally.confidences() for tally in self.tallies]

    def write_maps(self, paths: Mapping[str, Path]) -> None:
        """Write the maps on the raw grid, 0 outside the crop, with the raw image's geometry."""
        for name, planes in self.maps.items():
            whole = restore_slices(planes, self.properties, np.float16)
            write_fractions(paths[name], whole, self.properties.geometry)


def watch_members(labels: LabelSet, members: int, properties: CaseProperties, maps: Iterable[str] = ()) -> Watch:
    """Return a watch over so many members that has seen nothing yet of a case."""
    tallies = tuple(ConfidenceTally(labels) for _ in range(members))
    return Watch(labels, properties, tallies, {name: [] for name in maps})


def map_names(members: int) -> tuple[str, ...]:
    """Return which maps an ensemble of so many members has; a single one cannot disagree."""
    return ("entropy", "disagreement") if members > 1 else ("entropy",)


def mean_confidences(members: Sequence[Mapping[str, Confidence | None]]) -> dict[str, Confidence | None]:
    """Return class -> mean over the members that predict the class, None where none does."""
    result: dict[str, Confidence | None] = {}
    for name in members[0]:
        found = [one for member in members if (one := member[name]) is not None]
        agreement, certainty = (
            float(np.mean([getattr(one, figure) for one in found])) if found else 0.0
            for figure in ("agreement", "certainty")
        )
        result[name] = Confidence(agreement, certainty) if found else None
    return result
