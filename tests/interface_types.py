"""What type checkers see behind `from autosam_net import ...`; `make typecheck` reads this, nothing runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

from autosam_net import (
    Folders,
    Model,
    Segmentation,
    Volume,
    embed_image,
    find_folders,
    load_encoder,
    load_model,
    read_image,
    segment,
)


def use(path: Path) -> None:
    """Use the interface as a notebook does."""
    assert_type(find_folders(path), Folders)
    assert_type(read_image("scan.nii.gz"), Volume)
    assert_type(load_model(27), Model)
    assert_type(segment(path, "model.zip"), Segmentation)
    assert_type(segment(path, load_model(path)).mask("LV"), NDArray[np.bool_])
    assert_type(embed_image(path, load_encoder("lite_medsam")), NDArray[np.float32])
