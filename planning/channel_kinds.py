"""What kind of intensities a channel holds: by its name first, by its values otherwise."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from autosam_net.data.fingerprint import IntensityStats

RGB_NAMES = (("r", "g", "b"), ("red", "green", "blue"))
NATURAL_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
UNCALIBRATED = {"mr", "mri", "t1", "t1c", "t1w", "t1ce", "t2", "t2w", "flair", "adc", "dwi", "pet", "us", "ultrasound"}
AIR_HU = -900.0  # air has -1000; a scan of the body always has some around or in it
BONE_HU = 500.0


def channel_kinds(
    names: Sequence[str], stats: Sequence[Sequence[IntensityStats]], file_ending: str
) -> tuple[tuple[str, str], ...]:
    """Return for every channel its kind ("ct", "rgb" or "other") and how that was seen.

    Args:
        names: one a channel, out of dataset.json.
        stats: per case the intensities of every channel.
    """
    colour = _colour(names, stats, file_ending)
    kinds = []
    for channel, name in enumerate(names):
        if colour:
            kinds.append(("rgb", colour))
        else:
            kinds.append(_single(name, [case[channel] for case in stats]))
    return tuple(kinds)


def _colour(names: Sequence[str], stats: Sequence[Sequence[IntensityStats]], file_ending: str) -> str:
    if len(names) != 3:
        return ""
    eight_bit = all(
        channel.integer and 0 <= channel.minimum <= channel.maximum <= 255 for case in stats for channel in case
    )
    if not eight_bit:
        return ""
    if tuple(name.strip().casefold() for name in names) in RGB_NAMES:
        return f"named {', '.join(names)}, values within 0-255"
    if file_ending in NATURAL_ENDINGS:
        return f"{file_ending} files of three channels with whole numbers within 0-255"
    return ""


def _single(name: str, stats: Sequence[IntensityStats]) -> tuple[str, str]:
    words = set(re.findall(r"[a-z0-9]+", name.casefold()))
    if "ct" in words:
        return "ct", f"named {name!r}"
    lowest = float(np.median([entry.minimum for entry in stats]))
    highest = float(np.median([entry.maximum for entry in stats]))
    whole = all(entry.integer for entry in stats)
    if whole and lowest <= AIR_HU and highest > BONE_HU and not words & UNCALIBRATED:
        return "ct", f"named {name!r}, but whole numbers from {lowest:g} to {highest:g} (medians) are Hounsfield units"
    return "other", f"named {name!r}, values from {lowest:.4g} to {highest:.4g} (medians over cases)"
