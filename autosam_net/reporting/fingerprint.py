"""What was measured on a data set, as charts and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autosam_net.data.fingerprint import Fingerprint, IntensityStats
from autosam_net.reporting import charts

if TYPE_CHECKING:
    from markupsafe import Markup

QUANTILES = slice(1, -1)  # all but minimum and maximum, which single voxels reach
TAIL = 1.0  # percent of the intensities at either end that are not drawn
AXES = "ZYX"


@dataclass(frozen=True)
class ClassRow:
    """One class in all cases; volumes in mm3, over the cases that have it.

    Attributes:
        pieces: largest number of connected components in a case.
    """

    name: str
    cases: int
    smallest: float
    median: float
    largest: float
    pieces: int


def class_rows(fingerprint: Fingerprint) -> list[ClassRow]:
    """Return one row a class."""
    rows = []
    for name, count in fingerprint.presence.items():
        stats = [case.classes[name] for case in fingerprint.cases if name in case.classes]
        volumes = [entry.volume_mm3 for entry in stats if entry.voxels] or [0.0]
        pieces = max((entry.components for entry in stats), default=0)
        rows.append(ClassRow(name, count, min(volumes), float(np.median(volumes)), max(volumes), pieces))
    return rows


def fingerprint_charts(fingerprint: Fingerprint) -> list[Markup]:
    """Return histograms over cases of sizes, spacings and volumes, and of the intensities of each channel."""
    cases = fingerprint.cases
    if not cases:
        return []
    sizes = [
        charts.histogram([case.shape[axis] for case in cases], f"voxels along {AXES[axis]}")
        for axis in range(3)
        if any(case.shape[axis] > 1 for case in cases)
    ]
    spacings = [
        charts.histogram([case.spacing[axis] for case in cases], f"spacing along {AXES[axis]}, mm")
        for axis in range(3)
        if any(case.calibrated and case.shape[axis] > 1 for case in cases)
    ]
    channels = [
        _intensities([case.channels[channel] for case in cases], channel) for channel in range(len(cases[0].channels))
    ]
    return [*channels, *sizes, *spacings, *_volumes(fingerprint)]


def _intensities(stats: Sequence[IntensityStats], channel: int) -> Markup:
    """Return the intensities of a channel, every case weighted alike, out of the quantiles of each."""
    whole = [value for entry in stats for value in entry.image_quantiles[QUANTILES]]
    inside = [value for entry in stats for value in entry.foreground_quantiles[QUANTILES]]
    low, high = np.percentile(whole, (TAIL, 100 - TAIL))
    shown = [[value for value in values if low <= value <= high] for values in (whole, inside)]
    return charts.histogram(
        shown[0], f"intensities of channel {channel}: whole images, and foreground on top", shown[1]
    )


def _volumes(fingerprint: Fingerprint) -> list[Markup]:
    """Return the volume of each class, in ml where they are large."""
    pictures = []
    for name in fingerprint.presence:
        found = [case.classes[name].volume_mm3 for case in fingerprint.cases if name in case.classes]
        volumes = [volume for volume in found if volume > 0]
        if volumes:
            large = max(volumes) >= 1000
            shown = [volume / 1000 for volume in volumes] if large else volumes
            pictures.append(charts.histogram(shown, f"volume of {name}, {'ml' if large else 'mm³'}"))
    return pictures
