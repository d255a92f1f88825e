"""A preprocessed case and the way back to its raw grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.volume import Geometry


@dataclass(frozen=True)
class CaseProperties:
    """All that is needed to go back to the raw grid.

    Attributes:
        raw_shape: voxels of the raw array (Z, Y, X).
        geometry: of the raw volume.
        slice_axis: the raw axis that became the first.
        crop: start and stop along the three axes after the transposition, in raw voxels.
        shape: (Z, Y, X) of the preprocessed array.
    """

    name: str
    raw_shape: tuple[int, int, int]
    geometry: Geometry
    slice_axis: int
    crop: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    shape: tuple[int, int, int]

    @property
    def cropped_shape(self) -> tuple[int, int, int]:
        """Return the voxels inside the crop, slice axis first, before resampling."""
        (a, b), (c, d), (e, f) = self.crop
        return b - a, d - c, f - e


@dataclass(frozen=True)
class PreprocessedCase:
    """Normalised, cropped, resampled, slice axis first.

    Attributes:
        image: `(C, Z, Y, X)` float32 in [0, 1].
        labels: `(Z, Y, X)` of label values, or None.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.integer] | None
    properties: CaseProperties
