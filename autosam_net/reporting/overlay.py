"""Slices as 8-bit pictures, and label maps as outlines on them, in colours that go with any number of classes."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Entry = TypeVar("Entry")
Scalar = TypeVar("Scalar", bound=np.generic)
Outline = list[NDArray[np.float64]]
"""Closed curves, each `(points, 2)` as (x, y) in pixels, (0, 0) the outer corner of the first pixel."""

PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2")
"""Okabe and Ito's, which colour-blind people can tell apart; black, which no dark image shows, left out."""
WINDOW = (0.5, 99.5)  # percent of the voxels that become black and white
SAMPLED_VOXELS = 1_000_000  # for the percentiles
CLEARLY_LARGER = 1.5  # times the spacing of the other axes: the direction of acquisition


def colours(number: int) -> list[str]:
    """Return that many different colours as `#rrggbb`; beyond the palette, hues a golden angle apart."""
    hues = (0.618034 * index % 1.0 for index in range(max(0, number - len(PALETTE))))
    more = [colorsys.hls_to_rgb(hue, 0.6, 0.75) for hue in hues]
    return [*PALETTE[:number], *("#" + "".join(f"{round(255 * part):02x}" for part in colour) for colour in more)]


def thickest_axis(shape: Sequence[int], spacing: Sequence[float]) -> int:
    """Return the axis across which to show slices: of clearly the largest spacing, else with the fewest voxels."""
    widest = int(np.argmax(spacing))
    others = [step for axis, step in enumerate(spacing) if axis != widest]
    return widest if spacing[widest] > CLEARLY_LARGER * max(others) and shape[0] > 1 else int(np.argmin(shape))


def slices_first(array: NDArray[Scalar], axis: int) -> NDArray[Scalar]:
    """Return `(..., Z, Y, X)` with `axis` of the last three in front; Z points upwards where it is in the plane."""
    moved = np.moveaxis(array, axis - 3, -3)
    return moved if axis == 0 else moved[..., ::-1, :]


def plane_spacing(spacing: tuple[float, float, float], axis: int) -> tuple[float, float]:
    """Return the mm between rows and between columns of the slices across `axis`."""
    rows, columns = (step for other, step in enumerate(spacing) if other != axis)
    return rows, columns


def is_colour(image: NDArray[np.generic]) -> bool:
    """Return whether an image `(C, Z, Y, X)` is one of 8-bit colours."""
    return len(image) == 3 and bool(image.min() >= 0 and image.max() <= 255 and np.array_equal(image, np.rint(image)))


def intensity_window(channel: NDArray[np.generic]) -> tuple[float, float]:
    """Return the intensities that become black and white."""
    sample = channel.ravel()[:: max(1, channel.size // SAMPLED_VOXELS)].astype(np.float64)
    low, high = np.percentile(sample[np.isfinite(sample)], WINDOW) if np.isfinite(sample).any() else (0.0, 1.0)
    return float(low), float(high)


def to_eight_bit(plane: NDArray[np.generic], window: tuple[float, float]) -> NDArray[np.uint8]:
    """Return a plane with the intensities of `window` spread over 0-255."""
    low, high = window
    scaled = (np.nan_to_num(plane.astype(np.float64)) - low) / (high - low if high > low else 1.0)
    return np.rint(255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def spread(entries: Sequence[Entry], most: int) -> list[Entry]:
    """Return at most `most` of the entries, evenly spread, the first and the last among them where there are two."""
    if len(entries) <= most:
        return list(entries)
    if most == 1:
        return [entries[len(entries) // 2]]
    return [entries[round(place)] for place in np.linspace(0, len(entries) - 1, most)]


def slices_to_show(label_maps: Sequence[NDArray[np.integer]], depth: int, most: int) -> list[int]:
    """Return at most `most` slice numbers: of those with foreground in a label map `(Z, Y, X)`, else of all."""
    filled = [index for index in range(depth) if any(labels[index].any() for labels in label_maps)]
    return spread(filled or range(depth), most)


def outline(mask: NDArray[np.bool_]) -> Outline:
    """Return the curves half-way between the pixels in a mask `(Y, X)` and those outside."""
    from skimage.measure import find_contours

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    top, left = int(rows[0]), int(columns[0])
    box = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)  # a border, so that every curve is closed
    return [curve[:, ::-1] + (left - 0.5, top - 0.5) for curve in find_contours(box.astype(np.float32), 0.5)]
