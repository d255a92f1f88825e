"""Arrays in memory become volumes with a geometry, or are refused."""

from __future__ import annotations

import numpy as np
import pytest

from autosam_net.data.volume import volume_of
from autosam_net.errors import DatasetError


@pytest.mark.parametrize(
    ("shape", "spacing", "whole", "dimensions"),
    [
        ((2, 3, 4), (5, 1, 2), (1, 2, 3, 4), 3),
        ((6, 2, 3, 4), (5, 1, 2), (6, 2, 3, 4), 3),
        ((3, 4), (1, 2), (1, 1, 3, 4), 2),
        ((6, 3, 4), (1, 2), (6, 1, 3, 4), 2),
    ],
)
def test_axes(shape: tuple[int, ...], spacing: tuple[int, ...], whole: tuple[int, ...], dimensions: int) -> None:
    volume = volume_of(np.zeros(shape), spacing)
    assert volume.array.shape == whole
    assert volume.geometry.dimensions == dimensions
    assert volume.geometry.spacing[-len(spacing) :] == spacing
    assert len(volume.geometry.origin) == dimensions and len(volume.geometry.direction) == dimensions**2


def test_what_is_no_image() -> None:
    for shape, spacing in (((4, 4, 4, 4, 4), (1, 1, 1)), ((4, 4), (1, 1, 1)), ((4,), (1,))):
        with pytest.raises(DatasetError, match=f"array: {len(shape)} axes and {len(spacing)} spacings; give 2 or 3"):
            volume_of(np.zeros(shape), spacing)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(DatasetError, match="give mm above 0 for each spatial axis"):
            volume_of(np.zeros((4, 4)), (1.0, bad))
