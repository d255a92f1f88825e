"""Pictures of raw data: 2D, 3D, colour, many labels, labels that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autosam_net.commands.preview import main
from autosam_net.reporting.preview import _targets
from tests.support import Prepared, write_nifti


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def has_colour(path: Path) -> bool:
    found = picture(path).astype(int)
    return bool((found.max(axis=-1) - found.min(axis=-1)).max() > 60)


def test_a_data_set(prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-d", "900", "--root", str(prepared.root), "-o", str(tmp_path / "out"), "-n", "2"]
    assert main(words) == 0
    assert "2 of 6 cases drawn" in capsys.readouterr().out
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [
        "patient001_frame01.png",
        "patient006_frame01.png",
    ]
    assert all(has_colour(path) for path in (tmp_path / "out").iterdir())
    assert main(words) == 2
    assert "exists. Give --overwrite to replace it" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert main([*words[:-2], "--cases", "patient01_frame01"]) == 2
    assert "no case 'patient01_frame01'; did you mean" in capsys.readouterr().err


def test_a_folder_of_volumes_with_labels_of_any_value(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((30, 20, 24), np.int16)
    for value in range(1, 31):
        labels[value % 30, 3:9, 4:12] = 7 * value
    for name, found in (("a", labels), ("b", labels[:5])):
        write_nifti(tmp_path / "images" / f"{name}_0000.nii.gz", rng.normal(size=labels.shape).astype(np.float32))
        write_nifti(tmp_path / "labels" / f"{name}.nii.gz", found)
    folders = ["-i", str(tmp_path / "images"), "-l", str(tmp_path / "labels"), "-o", str(tmp_path / "out")]
    assert main([*folders, "--slices", "3"]) == 0
    assert "b: the label has shape (5, 20, 24), the image (30, 20, 24); left out" in caplog.text
    assert has_colour(tmp_path / "out" / "a.png") and not has_colour(tmp_path / "out" / "b.png")


def test_colour_and_grey_images_in_2d(tmp_path: Path) -> None:
    colours = np.zeros((40, 60, 3), np.uint8)
    colours[10:20, 10:30] = (250, 30, 30)
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(colours).save(folder / "photo.png")
    Image.fromarray(colours[..., 0]).save(folder / "grey.png")
    assert main(["-i", str(folder), "-o", str(tmp_path / "out")]) == 0
    assert has_colour(tmp_path / "out" / "photo.png") and not has_colour(tmp_path / "out" / "grey.png")


def test_values_that_are_not_declared_are_named(prepared: Prepared) -> None:
    declared = prepared.dataset.labels
    assert list(_targets([0, 1, 99], declared)) == [*declared.targets, "99 (not in dataset.json)"]
    assert _targets([0, 7, 9], None) == {"7": (7,), "9": (9,)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-i", "{images}"], "-o is missing: name a folder for the pictures"),
        (["-i", "{images}", "-o", "{images}"], "the picture would overwrite raw data"),
        (["-i", "{images}", "-o", "x", "--slices", "0"], "--slices 0: give 1 or more"),
        (["-i", "{images}", "-o", "x", "-l", "{empty}"], "no image files or DICOM series found"),
        (["-d", "900", "-l", "{images}"], "--labels goes with -i"),
    ],
)
def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    folder, empty = tmp_path / "images", tmp_path / "empty"
    folder.mkdir(), empty.mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "a.png")
    assert main([word.format(images=folder, empty=empty) for word in words]) == 2
    assert message in capsys.readouterr().err
