"""The Python of docs/python_api.md and of the README runs as it stands there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.test_readme import ROOT, blocks


def test_from_raw_data_to_predictions(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for block in blocks(ROOT / "docs" / "python_api.md", "python"):
        exec(compile(block, "python_api.md", "exec"), names)
    result, written = names["result"], names["written"]
    assert result.labels.shape == names["image"].shape == names["heart"].shape
    np.testing.assert_array_equal(result.labels, names["again"].labels)
    assert names["embeddings"].shape == (result.labels.shape[0], 256, 64, 64)
    assert [path.name for path in written] == ["patient006_frame01.nii.gz", "patient007_frame01.nii.gz"]
    assert (place / "work" / "out" / "summary.json").is_file()
    assert "no trained model 'cnm'; did you mean 'cnn'?" in capsys.readouterr().out

    (place / "demo").mkdir()
    (place / "work").rename(place / "demo" / "Example")  # what `make demo` leaves, of twelve patients
    scans = place / "demo" / "Example" / "raw" / "Dataset900_Example" / "imagesTs"
    (scans / "patient007_frame01_0000.nii.gz").rename(scans / "patient011_frame01_0000.nii.gz")
    for block in blocks(ROOT / "README.md", "python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["result"].labels.shape == (6, 96, 96)
    assert all(path.is_file() for path in names["written"])
