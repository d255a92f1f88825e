"""An image in space: array and geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autosam_net.errors import DatasetError


@dataclass(frozen=True)
class Geometry:
    """Where the voxels lie.

    Attributes:
        spacing: mm between voxels along (Z, Y, X), the order of the array. 2D images have Z spacing 1.
        origin: mm, in the file's own order (x, y, z), as SimpleITK gives it.
        direction: row-major direction cosines in the file's own order; 9 numbers, or 4 for a 2D file.
        dimensions: 2 or 3, of the file; the array always has Z, of length 1 for a 2D file.
        calibrated: whether the file states a spacing; plain images (png, jpg) have 1.0 without a meaning.
    """

    spacing: tuple[float, float, float]
    origin: tuple[float, ...] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    dimensions: int = 3
    calibrated: bool = True


@dataclass(frozen=True)
class Volume:
    """Array `(C, Z, Y, X)` and its geometry; a 2D image has Z = 1, a label map C = 1."""

    array: NDArray[np.generic]
    geometry: Geometry

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the voxel counts `(Z, Y, X)`."""
        _, depth, height, width = self.array.shape
        return depth, height, width


def volume_of(array: NDArray[np.generic], spacing: Sequence[float]) -> Volume:
    """Return an array in memory as a volume.

    Args:
        array: `(Z, Y, X)` or `(C, Z, Y, X)`; with two spacings `(Y, X)` or `(C, Y, X)`.
        spacing: mm along each spatial axis, in array order; 1 for images without a scale.

    Raises:
        DatasetError: the numbers of axes and spacings do not fit, or a spacing is not above 0.
    """
    spatial = len(spacing)
    if spatial not in (2, 3) or array.ndim not in (spatial, spatial + 1):
        raise DatasetError(f"array: {array.ndim} axes and {spatial} spacings; give 2 or 3 spacings, one a spatial axis")
    if not all(np.isfinite(step) and step > 0 for step in spacing):
        raise DatasetError(f"array: spacing {tuple(spacing)}; give mm above 0 for each spatial axis")
    channels = array if array.ndim == spatial + 1 else array[None]
    steps = [float(step) for step in spacing]
    if spatial == 3:
        return Volume(channels, Geometry((steps[0], steps[1], steps[2])))
    return Volume(channels[:, None], Geometry((1.0, steps[0], steps[1]), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0), 2))
