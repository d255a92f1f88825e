from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from autosam_net.data.dataset import training_cases
from autosam_net.data.volume import Geometry, Volume
from autosam_net.errors import DatasetError
from planning.check_dataset import (
    Notice,
    Problem,
    check_case,
    check_structure,
    corner_displacement,
    grid_mismatch,
    log_notices,
    refuse,
)
from tests.planning.conftest import CASES, SPACING, RawDataset, phantom
from tests.support import write_nifti

FIRST = CASES[0]


def problems_of(raw: RawDataset) -> list[Problem]:
    dataset = raw.spec
    cases = training_cases(dataset)
    return [*check_structure(dataset, cases), *(p for case in cases for p in check_case(case, dataset).problems)]


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    image = sitk.ReadImage(str(path))
    write_nifti(path, change(sitk.GetArrayFromImage(image)))


def with_value(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[1, 2, 3] = value
        return array

    return change


def missing_label(raw: RawDataset) -> None:
    raw.label().unlink()


def missing_image(raw: RawDataset) -> None:
    raw.image().unlink()


def extra_value(raw: RawDataset) -> None:
    rewrite(raw.label(), with_value(7))


def fraction(raw: RawDataset) -> None:
    rewrite(raw.label(), lambda labels: with_value(0.5)(labels.astype(np.float32)))


def nan_label(raw: RawDataset) -> None:
    rewrite(raw.label(), lambda labels: with_value(np.nan)(labels.astype(np.float32)))


def nan_voxel(raw: RawDataset) -> None:
    rewrite(raw.image(), with_value(np.nan))


def infinite_voxel(raw: RawDataset) -> None:
    rewrite(raw.image(), with_value(-np.inf))


def constant(raw: RawDataset) -> None:
    rewrite(raw.image(), np.zeros_like)


def other_shape(raw: RawDataset) -> None:
    rewrite(raw.label(), lambda labels: labels[:, :-1])


def other_spacing(raw: RawDataset) -> None:
    write_nifti(raw.label(), phantom(0)[1], spacing=(5.0, 1.2, 1.0))


def other_place(raw: RawDataset) -> None:
    write_nifti(raw.label(), phantom(0)[1], origin=(0.0, 3.0, 0.0))


def truncated(raw: RawDataset) -> None:
    raw.image().write_bytes(raw.image().read_bytes()[:-200])


def four_dimensions(raw: RawDataset) -> None:
    image = sitk.ReadImage(str(raw.image()))
    sitk.WriteImage(sitk.JoinSeries([image, image + 1]), str(raw.image()))


def missing_channel(raw: RawDataset) -> None:
    raw.describe(channel_names={"0": "T1", "1": "T2"})
    for case in CASES[1:]:
        shutil.copy(raw.image(case), raw.image(case, 1))


def odd_channel(raw: RawDataset) -> None:
    raw.image().rename(raw.image(channel=1))


def other_channel_shape(raw: RawDataset) -> None:
    raw.describe(channel_names={"0": "T1", "1": "T2"})
    for case in CASES:
        shutil.copy(raw.image(case), raw.image(case, 1))
    rewrite(raw.image(channel=1), lambda image: image[:, :, 2:])


def wrong_count(raw: RawDataset) -> None:
    raw.describe(numTraining=7)


def wrong_ending(raw: RawDataset) -> None:
    shutil.copy(raw.label(), raw.folder / "labelsTr" / "stray.mha")


SPOILED = [
    (missing_label, FIRST, "found no such file; expected a label for every image", "Add the label"),
    (missing_image, FIRST, "a label without an image", "Add the image"),
    (extra_value, FIRST, r"label value 7; expected only \(0, 1, 2\)", "declare label 7"),
    (fraction, FIRST, "label file has the value 0.5, expected whole numbers", "nearest neighbour"),
    (nan_label, FIRST, r"has NaN or infinity in 1 voxel\(s\)", "Replace them"),
    (nan_voxel, FIRST, r"has NaN or infinity in 1 voxel\(s\), expected finite values", "Replace them"),
    (infinite_voxel, FIRST, r"has NaN or infinity in 1 voxel\(s\), expected finite values", "Replace them"),
    (constant, FIRST, "the one intensity 0 everywhere", "remove it"),
    (other_shape, FIRST, r"shape \(3, 19, 24\); expected shape \(3, 20, 24\)", "resample the label"),
    (other_spacing, FIRST, r"spacing \(5, 1.2, 1\) mm; expected spacing \(5, 1, 1\) mm", "resample the label"),
    (other_place, FIRST, "corners lie up to 3 mm away", "resample the label"),
    (truncated, FIRST, "truncated or damaged", "Copy or download it again"),
    (four_dimensions, FIRST, r"2 channels; expected 1 channels \(.*\)", "If the file holds time frames, save each"),
    (missing_channel, FIRST, r"1 channel; expected 2 channels \(T1, T2\)", "_0000, _0001"),
    (odd_channel, FIRST, f"files {FIRST}_0001.nii.gz; expected {FIRST}_0000.nii.gz", "rename the file"),
    (other_channel_shape, FIRST, r"shape \(3, 20, 22\); expected shape \(3, 20, 24\)", "onto one grid"),
    (wrong_count, None, "numTraining 7; expected 4", "Set numTraining to 4"),
    (wrong_ending, None, r"1 image file with another ending \(stray.mha\)", "correct file_ending"),
]


@pytest.mark.parametrize(("spoil", "case", "text", "cure"), SPOILED, ids=[entry[0].__name__ for entry in SPOILED])
def test_every_problem_is_named_with_its_cure(
    raw: RawDataset, spoil: Callable[[RawDataset], None], case: str | None, text: str, cure: str
) -> None:
    assert not problems_of(raw)
    spoil(raw)
    problems = problems_of(raw)
    assert [problem.case for problem in problems] == [case]
    with pytest.raises(DatasetError, match=text) as caught:
        refuse(problems, raw.spec)
    line = str(caught.value)
    assert "\n" not in line
    assert cure in line
    assert problems[0].file.name in line


def test_the_label_is_checked_even_where_the_image_is_bad(raw: RawDataset) -> None:
    truncated(raw)
    extra_value(raw)
    texts = [problem.line for problem in problems_of(raw)]
    assert len(texts) == 2
    assert any("truncated" in text for text in texts)
    assert any("label value 7" in text for text in texts)


def test_all_problems_are_listed_in_one_go(raw: RawDataset, caplog: pytest.LogCaptureFixture) -> None:
    extra_value(raw)
    nan_voxel(raw)
    raw.label(CASES[3]).unlink()
    with pytest.raises(DatasetError, match=r"^3 problems in 2 cases of Dataset005_Boxes; see above$"):
        refuse(problems_of(raw), raw.spec)
    assert len(caplog.messages) == 3
    assert sum(FIRST in message for message in caplog.messages) == 2


def test_a_missing_channel_among_several_files(raw: RawDataset) -> None:
    raw.describe(channel_names={"0": "T1", "1": "T2", "2": "FLAIR"})
    for case in CASES:
        shutil.copy(raw.image(case), raw.image(case, 1))
        shutil.copy(raw.image(case), raw.image(case, 2))
    raw.image(channel=1).unlink()
    (problem,) = problems_of(raw)
    assert problem.case == FIRST
    assert problem.file.name == f"{FIRST}_0001.nii.gz"
    assert "the 3 channels of dataset.json" in problem.line


def test_an_empty_folder(raw: RawDataset) -> None:
    shutil.rmtree(raw.folder / "imagesTr")
    shutil.rmtree(raw.folder / "labelsTr")
    assert "imagesTr: found no such folder; expected images CASE_0000.nii.gz" in problems_of(raw)[0].line
    (raw.folder / "imagesTr").mkdir()
    assert "found no *.nii.gz file" in problems_of(raw)[0].line


def test_an_unknown_file_ending(raw: RawDataset) -> None:
    raw.describe(file_ending=".dcmx")
    assert "found file_ending '.dcmx'; expected one of .png" in problems_of(raw)[0].line


def test_names_that_differ_in_case_only(raw: RawDataset) -> None:
    write_nifti(raw.image(FIRST.upper()), phantom(9)[0])
    write_nifti(raw.label(FIRST.upper()), phantom(9)[1])
    raw.describe(numTraining=5)
    (problem,) = problems_of(raw)
    assert f"the same name as {FIRST.upper()}" in problem.line


def test_listed_files_that_do_not_exist(raw: RawDataset) -> None:
    entry = {"images": [str(raw.image())], "label": "labelsTr/none.nii.gz"}
    raw.describe(dataset={FIRST: entry}, numTraining=1)
    problems = check_structure(raw.spec, training_cases(raw.spec))
    assert "none.nii.gz: found no such file; expected the file that dataset.json lists" in problems[0].line


def test_an_empty_label_and_a_constant_channel_are_notices(raw: RawDataset, caplog: pytest.LogCaptureFixture) -> None:
    raw.describe(channel_names={"0": "T1", "1": "T2"})
    for case in CASES:
        shutil.copy(raw.image(case), raw.image(case, 1))
    rewrite(raw.image(channel=1), np.zeros_like)
    rewrite(raw.label(), np.zeros_like)
    checked = check_case(training_cases(raw.spec)[0], raw.spec)
    assert not checked.problems
    assert [notice.text for notice in checked.notices] == ["channel 1 is constant", "the label has no foreground"]
    with caplog.at_level("INFO"):
        log_notices(Notice(f"case{index}", "odd") for index in range(8))
    assert caplog.messages == ["case0, case1, case2, case3, case4 and 3 more: odd"]


def test_headers_that_differ_by_less_than_half_a_voxel_are_a_notice(raw: RawDataset) -> None:
    write_nifti(raw.label(), phantom(0)[1], origin=(0.3, 0.0, 0.0))
    checked = check_case(training_cases(raw.spec)[0], raw.spec)
    assert not checked.problems
    assert "less than half a voxel" in checked.notices[0].text


def test_rounded_headers_are_no_remark() -> None:
    one, two = Geometry(SPACING), Geometry((5.0, 1.0000001, 1.0), origin=(1e-5, 0.0, 0.0))
    array = np.zeros((1, 3, 20, 24))
    assert grid_mismatch(Volume(array, one), Volume(array, two)) == ""


def test_the_displacement_is_that_of_the_farthest_corner() -> None:
    one = Geometry((1.0, 1.0, 1.0))
    turned = Geometry((1.0, 1.0, 1.0), direction=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    assert corner_displacement((2, 3, 11), one, turned) == pytest.approx(20.0)
    assert corner_displacement((2, 3, 11), one, Geometry((1.0, 1.0, 1.1))) == pytest.approx(1.0)


def test_nan_in_formats_that_keep_it(tmp_path: Path, raw: RawDataset) -> None:
    image, labels = phantom(0)
    image[0, 0, :2] = np.nan
    folder = tmp_path / "raw" / "Dataset007_Meta"
    write_nifti(folder / "imagesTr" / "one_0000.mha", image)
    write_nifti(folder / "labelsTr" / "one.mha", labels)
    shutil.copy(raw.folder / "dataset.json", folder)
    other = RawDataset(tmp_path, folder)
    other.describe(file_ending=".mha", numTraining=1)
    (problem,) = problems_of(other)
    assert "found NaN or infinity in 2 voxel(s); expected finite intensities" in problem.line


@pytest.fixture
def pictures(tmp_path: Path) -> RawDataset:
    folder = tmp_path / "raw" / "Dataset006_Pictures"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8)
    Image.fromarray(pixels, "RGBA").save(folder / "imagesTr" / "one_0000.png")
    Image.fromarray(pixels[..., 0] // 128).save(folder / "labelsTr" / "one.png")
    (folder / "dataset.json").write_text(
        '{"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "thing": 1}, '
        '"numTraining": 1, "file_ending": ".png"}'
    )
    return RawDataset(tmp_path, folder)


def test_one_picture_may_hold_all_channels_and_alpha(pictures: RawDataset) -> None:
    assert not problems_of(pictures)


def test_a_colour_picture_for_one_channel_is_refused(pictures: RawDataset) -> None:
    pictures.describe(channel_names={"0": "ultrasound"})
    (problem,) = problems_of(pictures)
    assert "found 3 channels; expected 1 channels (ultrasound)" in problem.line
