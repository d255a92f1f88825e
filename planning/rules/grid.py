"""Across which axis slices are taken, how many pixels the encoder sees of them, of which size, and in which tiles."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from autosam_net.data.encoding import Encoding
from autosam_net.data.fingerprint import CaseFingerprint, Fingerprint
from autosam_net.data.plan import Preprocessing
from autosam_net.encoders.catalog import EncoderEntry
from autosam_net.preprocessing.geometry import plane_shape
from autosam_net.preprocessing.slices import count_inputs
from planning.machine import Machine

CLEARLY_LARGER = 1.5  # a spacing this much larger than both others marks the direction of acquisition
SIZE_STEP = 64  # pixels; window attention wants multiples of it
SMALLEST_SIZE = 128
CPU_SIZE = 512  # an encoder for 1024 px costs a CPU four times less at half the side, attention even more
CELL_PIXELS = 2.0  # an embedding cell shall not be finer than two raw pixels: nothing more can be seen there
SMALL_PIXELS = 12.0  # structures with fewer pixels across vanish in the embedding
OVERLAP = 0.25


def choose_slice_axis(fingerprint: Fingerprint) -> tuple[int, str]:
    """Return the raw axis (0 Z, 1 Y, 2 X) across which slices are taken."""
    spacing = np.median([case.spacing for case in fingerprint.cases], axis=0)
    voxels = np.median([case.cropped_shape for case in fingerprint.cases], axis=0)
    if all(case.shape[0] == 1 for case in fingerprint.cases):
        return 0, f"the images are 2D (1 slice of {voxels[1]:g} x {voxels[2]:g} pixels, median)"
    widest = int(np.argmax(spacing))
    others = np.delete(spacing, widest)
    if spacing[widest] > CLEARLY_LARGER * others.max():
        return widest, (
            f"median spacing {spacing[widest]:.3g} mm along {'ZYX'[widest]}, more than {CLEARLY_LARGER:g} times "
            f"the {others.max():.3g} mm of the others: the direction of acquisition"
        )
    fewest = int(np.argmin(voxels))
    return fewest, (
        f"no axis has a clearly larger spacing ({_list(spacing)} mm along Z, Y, X, medians), so the axis with the "
        f"fewest voxels ({voxels[fewest]:g}), the cheapest to encode"
    )


@dataclass(frozen=True)
class InPlane:
    """Medians over cases that sizes are planned from.

    Attributes:
        extent: 95th percentile of the larger side of the cropped plane, mm.
        spacing: geometric mean of the raw in-plane spacings, mm.
        between: spacing between slices, mm.
        slices: number of slices.
        unit: "mm", or "px" where the files state no spacing.
    """

    extent: float
    spacing: float
    between: float
    slices: float
    unit: str


def in_plane(fingerprint: Fingerprint, axis: int) -> InPlane:
    """Return the sizes of the planes across `axis`."""
    plane = [other for other in range(3) if other != axis]
    cases = fingerprint.cases
    extents = [max(case.cropped_shape[other] * case.spacing[other] for other in plane) for case in cases]
    spacings = [math.sqrt(case.spacing[plane[0]] * case.spacing[plane[1]]) for case in cases]
    return InPlane(
        extent=float(np.percentile(np.sort(extents), 95)),
        spacing=float(np.median(spacings)),
        between=float(np.median([case.spacing[axis] for case in cases])),
        slices=float(np.median([case.cropped_shape[axis] for case in cases])),
        unit="mm" if any(case.calibrated for case in cases) else "px",
    )


def finest_spacing(raw: float, entry: EncoderEntry) -> float:
    """Return the spacing at which one embedding cell covers two raw pixels (half the raw spacing at a stride of 4)."""
    return raw * CELL_PIXELS / entry.stride


def choose_input_size(sizes: InPlane, entry: EncoderEntry, machine: Machine) -> tuple[int, str]:
    """Return the pixels of the encoder's square input: the smallest that shows a slice as finely as is of use."""
    largest = entry.input_size if machine.has_gpu else min(entry.input_size, CPU_SIZE)
    step = math.lcm(SIZE_STEP, entry.multiple) if entry.input_size >= SMALLEST_SIZE else entry.multiple
    finest = finest_spacing(sizes.spacing, entry)
    candidates = range(step, largest + 1, step)
    for size in candidates:
        if size >= SMALLEST_SIZE and size * finest >= sizes.extent:
            return size, (
                f"the smallest multiple of {step} that holds {sizes.extent:.4g} {sizes.unit} (95th percentile of the "
                f"larger side) with slices enlarged {entry.stride / CELL_PIXELS:g}-fold"
            )
    limit = "its own size" if largest == entry.input_size else f"at most {CPU_SIZE} without a GPU"
    return largest, (
        f"slices of {sizes.extent:.4g} {sizes.unit} (95th percentile of the larger side) at {sizes.spacing:.3g} "
        f"{sizes.unit} a pixel fill the encoder's input: {largest} px, {limit}"
    )


@dataclass(frozen=True)
class Resolution:
    """Target spacing, and the reasons for it and for tiles or none."""

    spacing: float
    spacing_reason: str
    tiling_reason: str


def choose_resolution(fingerprint: Fingerprint, axis: int, size: int, entry: EncoderEntry) -> Resolution:
    """Return the in-plane target spacing: a slice fills one input, unless the smallest class then vanishes."""
    sizes = in_plane(fingerprint, axis)
    unit, finest = sizes.unit, finest_spacing(sizes.spacing, entry)
    whole = _round_up(max(sizes.extent / size, finest))
    reason = (
        f"{sizes.extent:.4g} {unit} on {size} px, not finer than {finest:.3g} {unit} "
        f"(the raw {sizes.spacing:.3g} {unit} enlarged {entry.stride / CELL_PIXELS:g}-fold)"
    )
    tiling = (
        f"a slice fits one input; the few larger ones (5 % of cases) are cut into tiles that overlap by {OVERLAP:.0%}"
    )
    smallest = smallest_extent(fingerprint, axis)
    if smallest is None or smallest / whole >= SMALL_PIXELS:
        across = (
            "no class is present" if smallest is None else f"the smallest class has {smallest / whole:.0f} px across"
        )
        return Resolution(whole, f"{reason}; {across}", tiling)
    finer = _round_up(max(smallest / SMALL_PIXELS, finest))
    if finer >= whole:
        return Resolution(whole, f"{reason}; the smallest class has only {smallest / whole:.1f} px across", tiling)
    return Resolution(
        finer,
        f"the smallest class is {smallest:.3g} {unit} across, only {smallest / whole:.1f} px at {whole:g} {unit} where "
        f"a slice fits one input; {smallest / finer:.0f} px at {finer:g} {unit}",
        f"slices of {sizes.extent / finer:.0f} px are cut into inputs of {size} px that overlap by {OVERLAP:.0%}, "
        f"for the sake of a class of {smallest:.3g} {unit}",
    )


def smallest_extent(fingerprint: Fingerprint, axis: int) -> float | None:
    """Return how far the smallest class reaches in plane (mm): the 10th percentile over classes; None without any."""
    extents = class_extents(fingerprint, axis)
    return float(np.percentile(extents, 10)) if extents else None


def class_extents(fingerprint: Fingerprint, axis: int) -> list[float]:
    """Return how far each class reaches in plane (mm), sorted.

    Of each class the median over cases of its typical component, the geometric mean of both sides.
    """
    plane = [other for other in range(3) if other != axis]
    extents: dict[str, list[float]] = {}
    for case in fingerprint.cases:
        for name, stats in case.classes.items():
            sides = [stats.component_extent_mm[other] for other in plane]
            extents.setdefault(name, []).append(math.sqrt(sides[0] * sides[1]))
    return sorted(float(np.median(values)) for values in extents.values())


def count_case_inputs(fingerprint: Fingerprint, preprocessing: Preprocessing, encoding: Encoding) -> dict[str, int]:
    """Return case -> number of encoder inputs (slices times tiles)."""
    return {case.name: count_inputs(planned_shape(case, preprocessing), encoding) for case in fingerprint.cases}


def planned_shape(case: CaseFingerprint, preprocessing: Preprocessing) -> tuple[int, int, int]:
    """Return `(Z, Y, X)` of the case after preprocessing."""
    axis = preprocessing.slice_axis
    plane = [other for other in range(3) if other != axis]
    pixels = (case.cropped_shape[plane[0]], case.cropped_shape[plane[1]])
    height, width = plane_shape(pixels, (case.spacing[plane[0]], case.spacing[plane[1]]), preprocessing.spacing)
    return case.cropped_shape[axis], height, width


def _round_up(value: float) -> float:
    """Return `value` with four digits, never less: a slice that just fits must not spill over its input."""
    power = 10.0 ** (math.floor(math.log10(value)) - 3)
    return float(f"{math.ceil(round(value / power, 6)) * power:.6g}")


def _list(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
