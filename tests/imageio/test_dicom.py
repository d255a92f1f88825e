"""Folders of DICOM slices: read as they lie in space, or refused with the reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.uid import BasicTextSRStorage, RLELossless, generate_uid

from autosam_net.data.volume import Geometry, Volume
from autosam_net.errors import ImageFileError
from autosam_net.imageio import (
    FOLDER_READERS,
    FolderReader,
    count_numbers,
    is_image_folder,
    read_case,
    read_image,
    write_label,
)
from tests.dicom_files import AXIAL, ORIGIN, SPACING, noise, write_series
from tests.support import real_data

OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)


def reason(folder: Path) -> str:
    with pytest.raises(ImageFileError) as caught:
        read_image(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("axes", [AXIAL, OBLIQUE])
def test_slices_are_sorted_by_position_and_rescaled(tmp_path: Path, axes: tuple[float, ...]) -> None:
    volume = read_image(write_series(tmp_path / "ct", noise(), axes))
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array[0], noise() - 1024.0)
    np.testing.assert_allclose(volume.geometry.spacing, SPACING)
    np.testing.assert_allclose(volume.geometry.origin, ORIGIN)
    expected = np.column_stack([axes[:3], axes[3:], np.cross(axes[:3], axes[3:])])
    np.testing.assert_allclose(np.reshape(volume.geometry.direction, (3, 3)), expected, atol=1e-7)
    assert volume.geometry.calibrated and volume.geometry.dimensions == 3


def test_the_grid_is_the_one_that_itk_sees(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", noise(), OBLIQUE)
    volume = read_image(folder)
    series = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    np.testing.assert_array_equal(volume.array[0], sitk.GetArrayFromImage(series))
    for ours, theirs in (
        (volume.geometry.spacing[::-1], series.GetSpacing()),
        (volume.geometry.origin, series.GetOrigin()),
        (volume.geometry.direction, series.GetDirection()),
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_every_slice_has_a_rescale_of_its_own(tmp_path: Path) -> None:
    def as_pet(header: Dataset, index: int) -> None:
        header.RescaleSlope, header.RescaleIntercept = 1 + index / 4, index

    stored = noise()
    expected = [pixels * (1 + index / 4) + index for index, pixels in enumerate(stored)]
    np.testing.assert_allclose(read_image(write_series(tmp_path, stored, change=as_pet)).array[0], expected, rtol=1e-6)


def test_compressed_slices_are_read(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", noise())
    for file in folder.iterdir():
        header = pydicom.dcmread(file)
        header.compress(RLELossless)
        header.save_as(file)
    np.testing.assert_array_equal(read_image(folder).array[0], noise() - 1024.0)


def test_names_without_an_ending_and_other_files_are_no_hindrance(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", noise())
    for file in sorted(folder.iterdir()):
        file.rename(file.with_name(f"IM{file.stem}"))
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (folder / ".hidden").write_bytes(b"")
    (folder / "readme.txt").write_text("from the scanner")
    assert read_image(folder).shape == (5, 12, 10)


def test_reports_and_the_like_are_left_aside(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", noise())
    report = pydicom.dcmread(folder / "03.dcm")
    report.SeriesInstanceUID = generate_uid()
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    for key in ("Rows", "Columns", "PixelData"):
        del report[key]
    report.save_as(folder / "report.dcm")
    assert read_image(folder).shape == (5, 12, 10)


def test_one_slice_has_the_thickness_of_its_header(tmp_path: Path) -> None:
    assert read_image(write_series(tmp_path, noise((1, 6, 5)))).geometry.spacing == SPACING


def test_channels_may_be_series(tmp_path: Path) -> None:
    folders = [write_series(tmp_path / f"a_000{i}", noise(seed=i), seed=str(i)) for i in range(2)]
    assert read_case(folders).array.shape == (2, 5, 12, 10)


def test_several_series_are_listed(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "study", noise())
    shutil.copytree(write_series(tmp_path / "b", noise((2, 6, 5)), seed="scout"), tmp_path / "c")
    for file in (tmp_path / "c").iterdir():
        file.rename(folder / f"b{file.name}")
    text = reason(folder)
    assert "study: holds 2 series, expected one: number 4 CT series CT with 5 files" in text
    assert "number 4 CT scout CT with 2 files, such as b" in text and "Put each into a folder of its own" in text


def test_a_missing_slice_is_named(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", noise())
    (folder / "17.dcm").unlink()  # the third of five
    assert "1 slice(s) missing between 10.dcm and 24.dcm, 6 mm apart where others are 3 mm" in reason(folder)


def test_a_missing_slice_among_three_is_noticed(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", noise((4, 6, 5)))
    (folder / "10.dcm").unlink()
    assert "1 slice(s) missing" in reason(folder)


def move(header: Dataset, along: tuple[float, float, float]) -> None:
    header.ImagePositionPatient = [
        float(place) + step for place, step in zip(header.ImagePositionPatient, along, strict=True)
    ]


def test_gantry_tilt_is_refused(tmp_path: Path) -> None:
    def tilt(header: Dataset, index: int) -> None:
        move(header, (0.0, 0.5 * index, 0.0))

    text = reason(write_series(tmp_path / "ct", noise(), change=tilt))
    assert "31.dcm lies 2.0 mm sideways of 03.dcm, expected a straight stack (a gantry tilt of 9.5 degrees?)" in text


def test_rounded_positions_are_no_tilt_and_no_gap(tmp_path: Path) -> None:
    def jitter(header: Dataset, index: int) -> None:
        move(header, (0.02 * (index % 2), 0.0, 0.03 * (index % 2)))

    assert read_image(write_series(tmp_path, noise(), change=jitter)).shape == (5, 12, 10)


def test_uneven_slices_are_refused(tmp_path: Path) -> None:
    def shift(header: Dataset, index: int) -> None:
        move(header, (0.0, 0.0, 1.0 * (index == 2)))

    assert "slices lie 2 to 4 mm apart, expected one distance" in reason(write_series(tmp_path, noise(), change=shift))


def test_two_slices_at_one_place_are_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", noise())
    shutil.copy(folder / "03.dcm", folder / "again.dcm")
    assert "03.dcm and again.dcm lie at the same place, expected one slice a place" in reason(folder)


WRONG = [
    ("PixelSpacing", [0.9, 0.7], "and 03.dcm differ in pixel spacing, expected one grid"),
    ("ImageOrientationPatient", [1, 0, 0, 0, 0, -1], "and 03.dcm differ in orientation, expected one grid"),
    ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], "describe no grid with right angles"),
    ("PixelSpacing", [0, 0.7], "describe no grid with right angles"),
    ("ImagePositionPatient", ["nan", 0, 0], "describe no grid with right angles"),
    ("ImagePositionPatient", None, "10.dcm: states no ImagePositionPatient, expected a slice with a place"),
    ("ImagePositionPatient", [1, 2], "10.dcm: cannot be read, the file is truncated or damaged"),
    ("NumberOfFrames", 4, "10.dcm: holds 4 frames, expected a file for each slice. Convert it to NIfTI"),
    ("SamplesPerPixel", 3, "10.dcm: a colour image, expected grey values"),
]


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
@pytest.mark.parametrize(("key", "value", "text"), WRONG)
def test_what_is_no_stack_of_slices(tmp_path: Path, key: str, value: object, text: str) -> None:
    def spoil(header: Dataset, index: int) -> None:
        if index == 1:
            setattr(header, key, value)

    assert text in reason(write_series(tmp_path / "ct", noise(), change=spoil))


def test_slices_of_another_size_are_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", noise())
    small = write_series(tmp_path / "small", noise((5, 12, 8)))
    shutil.copy(small / "10.dcm", folder / "10.dcm")
    assert "differ in size, expected one grid" in reason(folder)


@pytest.mark.parametrize("part", [0, 100, 400, -50])
def test_a_truncated_slice_is_named(tmp_path: Path, part: int) -> None:
    folder = write_series(tmp_path / "ct", noise())
    file = folder / "10.dcm"
    file.write_bytes(file.read_bytes()[:part])
    assert "10.dcm: " in reason(folder)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    assert "a folder, but no DICOM series. Give an image file." in reason(tmp_path)
    (tmp_path / "a.dcm").write_bytes(b"<html>not found</html>" * 30)
    assert "a.dcm: cannot be read, the file is truncated or damaged (no DICOM header)" in reason(tmp_path)


def test_only_a_segmentation_is_no_series(tmp_path: Path) -> None:
    shutil.copy(real_data("DICOM") / "liver.dcm", tmp_path)
    assert "no DICOM slices, found Segmentation Storage. Give the folder of an image series" in reason(tmp_path)


def test_one_file_of_a_series_asks_for_the_folder(tmp_path: Path) -> None:
    folder = write_series(tmp_path, noise())
    assert "10.dcm: no reader for this file ending" in reason(folder / "10.dcm")
    assert "of a DICOM series give the folder" in reason(folder / "10.dcm")


def test_third_party_folder_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FOLDER_READERS, "_entries", dict(FOLDER_READERS._entries))

    def read(folder: Path) -> Volume:
        return Volume(np.stack([np.load(file) for file in sorted(folder.iterdir())])[None], Geometry((1.0, 1.0, 1.0)))

    FOLDER_READERS.register("arrays")(FolderReader(lambda folder: any(folder.glob("*.npy")), read))
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.zeros((4, 5)))
    assert is_image_folder(tmp_path) and not is_image_folder(tmp_path / "a.npy")
    assert read_image(tmp_path).shape == (2, 4, 5)


def test_real_series_lies_where_its_label_map_does(tmp_path: Path) -> None:
    folder = real_data("DICOM")
    volume, label = read_image(folder / "ct-3slice"), read_image(folder / "liver_seg.nrrd")
    assert volume.shape == label.shape == (3, 512, 512)
    for ours, theirs in zip(
        (volume.geometry.spacing, volume.geometry.origin, volume.geometry.direction),
        (label.geometry.spacing, label.geometry.origin, label.geometry.direction),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    liver = volume.array[0][label.array[0] > 0]
    assert 0 < np.median(liver) < 130  # Hounsfield units of soft tissue
    write_label(tmp_path / "again.nii.gz", label.array[0].astype(np.uint8), volume.geometry)


def test_headers_say_how_much_a_series_holds(tmp_path: Path) -> None:
    assert count_numbers([write_series(tmp_path / "ct", noise((5, 12, 10)))]) == 5 * 12 * 10
