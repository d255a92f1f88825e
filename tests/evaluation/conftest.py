from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autosam_net.data.volume import Geometry
from autosam_net.imageio import write_label

WriteLabels = Callable[..., Path]


@pytest.fixture
def write_labels() -> WriteLabels:
    """Write a label map `(Z, Y, X)` as a file and return its path."""

    def write(path: Path, labels: np.ndarray, spacing: tuple[float, float, float] = (2.0, 1.0, 1.0)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_label(path, labels.astype(np.uint8), Geometry(spacing))
        return path

    return write
