from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autosam_net.data.dataset import read_dataset, training_cases
from autosam_net.imageio import read_image, read_label, write_label
from autosam_net.imageio.dicom_seg import write_segmentation
from dataset_conversion.dicom import main
from tests.dicom_files import noise, write_series
from tests.support import real_data, write_nifti

LABELS = np.random.default_rng(0).integers(0, 3, (5, 12, 10)).astype(np.uint8)
CLASSES = {"liver": (1,), "spleen": (2,)}


def download(tmp_path: Path, labelled: tuple[str, ...] = ("p1/ct", "p2/a/ct")) -> Path:
    """Return a download as archives give it: folders of any depth, segmentations in folders of their own."""
    source = tmp_path / "download"
    for index, name in enumerate(("p1/ct", "p1/later", "p2/a/ct")):
        patient = name[:2].upper()
        folder = write_series(source / name, noise(seed=index), patient=patient, seed=name)
        if name in labelled:
            (source / name[:2] / "seg").mkdir()
            write_segmentation(source / name[:2] / "seg" / "1-1.dcm", LABELS, CLASSES, folder)
    return source


def convert(tmp_path: Path, source: Path, *more: str | Path) -> int:
    words = ["-i", source, "-d", "5", "-n", "Liver", "--root", tmp_path, "--workers", "1", *more]
    return main([str(word) for word in words])


def refused(tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str], *more: str | Path) -> str:
    capsys.readouterr()
    assert convert(tmp_path, source, *more) == 2
    assert not list((tmp_path / "raw").glob("*"))
    return capsys.readouterr().err


def test_segmentations_find_their_series(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = download(tmp_path)
    assert convert(tmp_path, source) == 0
    dataset = read_dataset(tmp_path / "raw" / "Dataset005_Liver")
    assert dataset.channel_names == ("CT",)
    assert dict(dataset.labels.values) == {"background": 0, "liver": 1, "spleen": 2}
    cases = training_cases(dataset)
    assert [case.name for case in cases] == ["p1_ct", "p2_a_ct"]
    image, label = read_image(cases[1].images[0]), read_label(cases[1].label)
    np.testing.assert_array_equal(image.array, read_image(source / "p2" / "a" / "ct").array)
    np.testing.assert_array_equal(label.array[0], LABELS)
    np.testing.assert_allclose(label.geometry.origin, image.geometry.origin)
    assert [path.name for path in (dataset.folder / "imagesTs").iterdir()] == ["p1_later_0000.nii.gz"]
    with (dataset.folder / "groups.csv").open() as file:
        assert list(csv.reader(file))[1:] == [
            ["p1_ct", "patient0001"],
            ["p1_later", "patient0001"],
            ["p2_a_ct", "patient0002"],
        ]
    assert "2 training cases, 1 test cases; channels CT; liver, spleen" in capsys.readouterr().out


def test_segments_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = download(tmp_path)
    text = refused(tmp_path, source, capsys, "--labels", "spleeen")
    assert "--labels spleeen: no segment is called so; did you mean 'spleen'?" in text
    assert convert(tmp_path, source, "--labels", "spleen") == 0
    dataset = read_dataset(tmp_path / "raw" / "Dataset005_Liver")
    assert dict(dataset.labels.values) == {"background": 0, "spleen": 1}
    np.testing.assert_array_equal(read_label(training_cases(dataset)[0].label).array[0], LABELS == 2)


def test_overlapping_segments_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = download(tmp_path, labelled=())
    write_segmentation(source / "a.dcm", LABELS, {"whole": (1, 2), "core": (2,)}, source / "p1" / "ct")
    count = int((LABELS == 2).sum())
    assert f"a.dcm: core overlaps whole in {count} voxels, expected one label" in refused(tmp_path, source, capsys)
    assert convert(tmp_path, source, "--labels", "core") == 0


@pytest.mark.parametrize("turned", [False, True])
def test_label_maps_of_other_formats_are_laid_on_the_series(tmp_path: Path, turned: bool) -> None:
    source, masks = download(tmp_path, labelled=()), tmp_path / "masks"
    write_label(masks / "p1_ct.nii.gz", LABELS, read_image(source / "p1" / "ct").geometry)
    if turned:  # as dcm2niix and others write it
        image = sitk.DICOMOrient(sitk.ReadImage(str(masks / "p1_ct.nii.gz")), "RIP")
        sitk.WriteImage(image, str(masks / "p1_ct.nii.gz"))
        assert read_label(masks / "p1_ct.nii.gz").shape != LABELS.shape
    assert convert(tmp_path, source, "-m", masks, "--labels", "liver", "spleen") == 0
    dataset = read_dataset(tmp_path / "raw" / "Dataset005_Liver")
    (case,) = training_cases(dataset)
    np.testing.assert_array_equal(read_label(case.label).array[0], LABELS)
    assert len(list((dataset.folder / "imagesTs").iterdir())) == 2


def test_a_label_map_on_another_grid_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, masks = download(tmp_path, labelled=()), tmp_path / "masks"
    geometry = read_image(source / "p1" / "later").geometry
    write_nifti(masks / "p1_ct.nii.gz", LABELS, (2.0, 1.0, 1.0))
    text = refused(tmp_path, source, capsys, "-m", masks)
    assert "p1_ct.nii.gz: its grid, 5 x 12 x 10 voxels of 2 x 1 x 1 mm from (0, 0, 0), is not that of" in text
    write_label(masks / "p1_ct.nii.gz", LABELS, geometry)
    assert "names 1 classes, the label maps have values up to 2" in refused(
        tmp_path, source, capsys, "-m", masks, "--labels", "one"
    )


def test_nothing_to_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty: no DICOM series found. Give the folder that holds" in refused(tmp_path, tmp_path / "empty", capsys)
    source = download(tmp_path, labelled=())
    text = refused(tmp_path, source, capsys)
    assert "no DICOM-SEG refers to one of the 3 series, and no label map is named as one of them (p1_ct, p1_l" in text


def test_two_kinds_of_labels_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, masks = download(tmp_path), tmp_path / "masks"
    write_label(masks / "p1_ct.nii.gz", LABELS, read_image(source / "p1" / "ct").geometry)
    assert "holds both DICOM-SEG and other label maps" in refused(tmp_path, source, capsys, "-m", masks)


def test_several_modalities_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = download(tmp_path)
    write_series(source / "mr", noise(), seed="mr", change=lambda header, _: setattr(header, "Modality", "MR"))
    assert "the series are of several modalities (CT, MR), expected one" in refused(tmp_path, source, capsys)


def test_a_gap_in_a_series_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = download(tmp_path)
    (source / "p1" / "ct" / "10.dcm").unlink()
    assert "1 slice(s) missing between" in refused(tmp_path, source, capsys)


def test_series_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = download(tmp_path)
    write_series(source / "p1_ct", noise(), seed="again")
    assert "would both be case p1_ct. Rename one." in refused(tmp_path, source, capsys)


def test_real_series(tmp_path: Path) -> None:
    folder = real_data("DICOM")
    assert convert(tmp_path, folder) == 0
    (case,) = training_cases(read_dataset(tmp_path / "raw" / "Dataset005_Liver"))
    np.testing.assert_array_equal(read_label(case.label).array, read_label(folder / "liver_seg.nrrd").array)
    np.testing.assert_array_equal(read_image(case.images[0]).array, read_image(folder / "ct-3slice").array)
