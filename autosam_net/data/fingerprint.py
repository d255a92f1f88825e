"""What was measured on a data set before anything was decided."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autosam_net.jsonio import load


@dataclass(frozen=True)
class IntensityStats:
    """Intensities of one channel of one case.

    Attributes:
        minimum, maximum, mean, std: over the whole image.
        image_quantiles: 0, 0.5, 1, ..., 100 percent of the whole image (201 numbers).
        foreground_quantiles: the same over foreground voxels; empty where the case has none.
        foreground_mean: 0 where the case has no foreground.
        integer: whether every value is a whole number.
    """

    minimum: float
    maximum: float
    mean: float
    std: float
    image_quantiles: tuple[float, ...]
    foreground_quantiles: tuple[float, ...]
    foreground_mean: float
    integer: bool


@dataclass(frozen=True)
class ClassStats:
    """One class or region in one case.

    Attributes:
        volume_mm3: of all its voxels.
        components: number of connected components (full connectivity).
        largest_component_mm3: volume of the largest.
        component_extent_mm: bounding box along (Z, Y, X) of the typical component: ordered by size, the one that holds
            the median voxel.
        slices: number of positions along (Z, Y, X) at which it is present.
        centroid_mm: of all its voxels, from the corner of the image, along (Z, Y, X).
    """

    voxels: int
    volume_mm3: float
    components: int
    largest_component_mm3: float
    component_extent_mm: tuple[float, float, float]
    slices: tuple[int, int, int]
    centroid_mm: tuple[float, float, float]


@dataclass(frozen=True)
class CaseFingerprint:
    """One case; lengths along (Z, Y, X).

    Attributes:
        content: sha256 over the case's files, by which a later run knows that nothing changed.
        cropped_shape: voxels left after cropping empty borders.
        foreground: all classes together.
    """

    name: str
    content: str
    shape: tuple[int, int, int]
    cropped_shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    calibrated: bool
    channels: tuple[IntensityStats, ...]
    classes: Mapping[str, ClassStats]
    foreground: ClassStats


@dataclass(frozen=True)
class Fingerprint:
    """A whole data set.

    Attributes:
        channel_kinds: per channel "ct", "rgb" (8-bit colour), or "other".
        groups: case -> patient.
        foreground_percentiles: per channel the 0.5 and 99.5 percentile of foreground intensities over all cases,
            every case weighted alike.
        presence: class -> number of cases that contain it.
    """

    dataset: str
    cases: tuple[CaseFingerprint, ...]
    channel_kinds: tuple[str, ...]
    groups: Mapping[str, str]
    foreground_percentiles: tuple[tuple[float, float], ...]
    presence: Mapping[str, int]


def load_groups(path: Path) -> Mapping[str, str]:
    """Return case -> patient of a `dataset_fingerprint.json`, which is read once as long as it stays the same.

    Raises:
        PlanError: the file is missing or damaged.
    """
    return _load_groups(path, path.stat().st_mtime_ns if path.exists() else 0)


@functools.lru_cache(maxsize=1)
def _load_groups(path: Path, modified: int) -> Mapping[str, str]:
    return load(Fingerprint, path).groups
