"""An image however a notebook has it: an array, a volume, a file, a DICOM folder, or the files of its channels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.volume import Volume, volume_of
from autosam_net.errors import UsageError
from autosam_net.imageio.reader import read_case

Image = NDArray[np.generic] | Volume | Path | str | Sequence[Path | str]
"""An array, what `read_image` returns, a file, a folder with a DICOM series, or the files of all channels in order."""


def open_image(image: Image, spacing: Sequence[float] | None = None) -> Volume:
    """Return an image as a volume.

    Args:
        spacing: of an array, mm along each spatial axis in array order; see `volume_of`.

    Raises:
        DatasetError: spacing and axes of an array do not fit, or the channels' files are of different grids.
        ImageFileError: a file cannot be read.
        UsageError: an array without a spacing, or something else with one.
    """
    if isinstance(image, np.ndarray):
        if spacing is None:
            axes = "(Y, X)" if image.ndim == 2 else "(Z, Y, X)"
            raise UsageError(f"array: no spacing. Give spacing in mm along {axes}; 1 for images without a scale.")
        return volume_of(image, spacing)
    if spacing is not None:
        raise UsageError(f"spacing {tuple(spacing)}: goes with an array; files and volumes have their own.")
    if isinstance(image, Volume):
        return image
    paths = [image] if isinstance(image, (str, Path)) else image
    return read_case([Path(path) for path in paths])
