"""A small raw data set on disk that each test may spoil in its own way."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from autosam_net.data.dataset import DatasetSpec, read_dataset
from autosam_net.paths import Folders, find_folders
from tests.support import write_nifti

SHAPE, SPACING = (3, 20, 24), (5.0, 1.0, 1.0)
CASES = ("patient1_a", "patient1_b", "patient2_a", "patient3_a")


def phantom(seed: int, shape: tuple[int, int, int] = SHAPE) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return an image with two bright boxes, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    labels[:, 4:16, 4:12] = 1
    labels[1:, 6:14, 14:20] = 2
    image = rng.normal(100, 5, shape) + 50 * labels
    return image.astype(np.float32), labels


@dataclass(frozen=True)
class RawDataset:
    """A raw data set in a folder of its own."""

    root: Path
    folder: Path

    @property
    def folders(self) -> Folders:
        return find_folders(self.root)

    @property
    def preprocessed(self) -> Path:
        return self.folders.preprocessed / self.folder.name

    @property
    def spec(self) -> DatasetSpec:
        return read_dataset(self.folder)

    def image(self, case: str = CASES[0], channel: int = 0) -> Path:
        return self.folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz"

    def label(self, case: str = CASES[0]) -> Path:
        return self.folder / "labelsTr" / f"{case}.nii.gz"

    def describe(self, **changes: Any) -> None:
        """Change keys of dataset.json."""
        path = self.folder / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def raw(tmp_path: Path) -> RawDataset:
    folder = tmp_path / "raw" / "Dataset005_Boxes"
    dataset = RawDataset(tmp_path, folder)
    for seed, case in enumerate(CASES):
        image, labels = phantom(seed)
        write_nifti(dataset.image(case), image)
        write_nifti(dataset.label(case), labels)
    content = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "left": 1, "right": 2},
        "numTraining": len(CASES),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return dataset
