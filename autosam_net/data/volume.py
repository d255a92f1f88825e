"""An image in space: array and geometry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
