from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

Save = Callable[..., Path]


@pytest.fixture
def save_volume() -> Save:
    """Return a function that writes a small volume of ones, with the shape given, as NIfTI."""

    def save(path: Path, shape: tuple[int, ...] = (3, 8, 8), value: int = 1) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = sitk.GetImageFromArray(np.full(shape[-3:], value, np.int16))
        if len(shape) == 4:
            image = sitk.JoinSeries([image + channel for channel in range(shape[0])])
        sitk.WriteImage(image, str(path))
        return path

    return save
