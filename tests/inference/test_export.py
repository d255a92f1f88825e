"""Label maps and probabilities on disk: whole, on the raw grid, the label map last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from autosam_net.data.case import CaseProperties
from autosam_net.data.labels import LabelSet
from autosam_net.data.volume import Geometry
from autosam_net.imageio import read_label
from autosam_net.inference.export import export_case

LABELS = LabelSet({"background": 0, "a": 1})
REGIONS = LabelSet({"background": 0, "whole": (1, 2), "core": 2}, (1, 2))
GEOMETRY = Geometry((1.0, 2.0, 3.0), origin=(4.0, 5.0, 6.0))
PROPERTIES = CaseProperties("case", (6, 4, 8), GEOMETRY, 1, ((1, 4), (2, 5), (0, 6)), (3, 3, 6))


def slices(fail: bool = False) -> Iterator[np.ndarray]:
    for position in range(3):
        if fail and position == 2:
            raise KeyboardInterrupt
        yield np.stack([np.full((3, 6), 0.2), np.full((3, 6), 0.8)]).astype(np.float32)


@pytest.mark.parametrize("labels", [LABELS, REGIONS])
def test_what_lies_in_the_crop_comes_back_to_its_place(tmp_path: Path, labels: LabelSet) -> None:
    export_case(tmp_path / "case.nii.gz", slices(), PROPERTIES, labels, tmp_path / "p.npy")
    volume = read_label(tmp_path / "case.nii.gz")
    assert volume.geometry == GEOMETRY
    inside = np.zeros((6, 4, 8), bool)
    inside[2:5, 1:4, 0:6] = True
    np.testing.assert_array_equal(volume.array[0] > 0, inside)
    probabilities = np.load(tmp_path / "p.npy")
    np.testing.assert_allclose(probabilities[1], np.where(inside, 0.8, 0), atol=1e-3)
    np.testing.assert_allclose(probabilities[0], np.where(inside, 0.2, 0 if labels is REGIONS else 1), atol=1e-3)


@pytest.mark.parametrize("probabilities", [None, "p.npy"])
def test_an_interruption_leaves_nothing(tmp_path: Path, probabilities: str | None) -> None:
    with pytest.raises(KeyboardInterrupt):
        export_case(
            tmp_path / "case.nii.gz", slices(fail=True), PROPERTIES, LABELS, probabilities and tmp_path / probabilities
        )
    assert list(tmp_path.iterdir()) == []


def test_a_label_map_means_that_the_probabilities_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("autosam_net.inference.export.write_label", stop)
    with pytest.raises(KeyboardInterrupt):
        export_case(tmp_path / "case.nii.gz", slices(), PROPERTIES, LABELS, tmp_path / "p.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["p.npy"]
