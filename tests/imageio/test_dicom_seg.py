"""DICOM-SEG: what is written is read again, by others too, and refers to its series."""

from __future__ import annotations

import shutil
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from autosam_net.errors import ImageFileError
from autosam_net.imageio import read_label
from autosam_net.imageio.dicom import read_slices
from autosam_net.imageio.dicom_seg import read_segments, write_segmentation
from tests.dicom_files import SPACING, noise, write_series
from tests.support import real_data

CLASSES = {"Läsion": (2,), "liver": (1,)}
REGIONS = {"whole": (1, 2), "core": (2,)}


@pytest.fixture
def series(tmp_path: Path) -> Path:
    return write_series(tmp_path / "ct", noise())


def label_map(shape: tuple[int, int, int] = (5, 12, 10)) -> NDArray[np.uint8]:
    labels = np.random.default_rng(1).integers(0, 3, shape).astype(np.uint8)
    labels[-1] = 0  # a frame that is left out
    return labels


def refused(file: Path, series: Path) -> str:
    with pytest.raises(ImageFileError) as caught:
        read_segments(file, read_slices(series))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("targets", [CLASSES, REGIONS])
def test_segments_are_the_classes_of_the_label_map(
    tmp_path: Path, series: Path, targets: dict[str, tuple[int, ...]]
) -> None:
    write_segmentation(tmp_path / "a.dcm", label_map(), targets, series)
    segments = read_segments(tmp_path / "a.dcm", read_slices(series))
    assert set(segments) == set(targets)
    for name, mask in segments.items():
        np.testing.assert_array_equal(mask, np.isin(label_map(), targets[name]))


def test_highdicom_finds_the_label_map_in_space(tmp_path: Path, series: Path) -> None:
    write_segmentation(tmp_path / "a.dcm", label_map(), CLASSES, series)
    volume = highdicom.seg.segread(tmp_path / "a.dcm").get_volume(combine_segments=True)
    np.testing.assert_allclose(volume.spacing, SPACING)
    geometry = highdicom.get_volume_from_series([pydicom.dcmread(file) for file in series.iterdir()])
    np.testing.assert_array_equal(volume.match_geometry(geometry).array, label_map()[::-1])  # theirs starts on top


def test_it_belongs_to_the_study_and_refers_to_each_slice(tmp_path: Path, series: Path) -> None:
    write_segmentation(tmp_path / "a.dcm", label_map(), CLASSES, series)
    written, sources = pydicom.dcmread(tmp_path / "a.dcm"), [entry.header for entry in read_slices(series)]
    for key in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert written[key].value == sources[0][key].value
    (reference,) = written.ReferencedSeriesSequence
    assert reference.SeriesInstanceUID == sources[0].SeriesInstanceUID != written.SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in reference.ReferencedInstanceSequence} == {
        source.SOPInstanceUID for source in sources
    }
    assert [(s.SegmentNumber, s.SegmentLabel) for s in written.SegmentSequence] == [(1, "liver"), (2, "Läsion")]
    colours = {tuple(segment.RecommendedDisplayCIELabValue) for segment in written.SegmentSequence}
    assert len(colours) == 2
    assert written.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"


def test_two_segmentations_are_two_objects(tmp_path: Path, series: Path) -> None:
    for name in "ab":
        write_segmentation(tmp_path / f"{name}.dcm", label_map(), CLASSES, series)
    first, second = (pydicom.dcmread(tmp_path / f"{name}.dcm") for name in "ab")
    assert first.SOPInstanceUID != second.SOPInstanceUID


def test_nothing_found_is_a_segmentation_too(tmp_path: Path, series: Path) -> None:
    write_segmentation(tmp_path / "a.dcm", np.zeros((5, 12, 10), np.uint8), CLASSES, series)
    assert not any(mask.any() for mask in read_segments(tmp_path / "a.dcm", read_slices(series)).values())


def test_headers_without_names_are_enough(tmp_path: Path) -> None:
    def anonymize(header: Dataset, index: int) -> None:
        for key in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime"):
            del header[key]
        del header.AccessionNumber

    series = write_series(tmp_path / "ct", noise(), change=anonymize)
    write_segmentation(tmp_path / "a.dcm", label_map(), CLASSES, series)
    assert len(read_segments(tmp_path / "a.dcm", read_slices(series))) == 2


def test_headers_without_a_study_are_not(tmp_path: Path) -> None:
    def cut(header: Dataset, index: int) -> None:
        del header.StudyInstanceUID

    series = write_series(tmp_path / "ct", noise(), change=cut)
    with pytest.raises(ImageFileError, match=r"no DICOM-SEG can refer to these slices \(.*StudyInstanceUID.*\)"):
        write_segmentation(tmp_path / "a.dcm", label_map(), CLASSES, series)
    assert not (tmp_path / "a.dcm").exists()


def test_long_names_and_backslashes_fit(tmp_path: Path, series: Path) -> None:
    write_segmentation(tmp_path / "a.dcm", label_map(), {"a\\b" + "x" * 90: (1,), "c": (2,)}, series)
    assert list(read_segments(tmp_path / "a.dcm", read_slices(series))) == ["a/b" + "x" * 61, "c"]


def test_another_grid_or_series_is_refused(tmp_path: Path, series: Path) -> None:
    write_segmentation(tmp_path / "a.dcm", label_map(), CLASSES, series)
    larger = write_series(tmp_path / "larger", noise((5, 14, 10)))
    assert "a.dcm: does not lie on the 5 slices of 14 x 10 pixels in" in refused(tmp_path / "a.dcm", larger)
    other = write_series(tmp_path / "other", noise(), seed="other")
    text = refused(tmp_path / "a.dcm", other)
    assert "a.dcm: does not lie on the 5 slices of 12 x 10 pixels in" in text
    assert "(it refers to 5 other images). Export it again, on the grid of its images." in text


def test_two_segments_of_one_name_are_refused(tmp_path: Path, series: Path) -> None:
    write_segmentation(tmp_path / "a.dcm", label_map(), CLASSES, series)
    written = pydicom.dcmread(tmp_path / "a.dcm")
    written.SegmentSequence[0].SegmentLabel = written.SegmentSequence[1].SegmentLabel
    written.save_as(tmp_path / "a.dcm")
    assert "two segments have one name (Läsion, Läsion). Rename one." in refused(tmp_path / "a.dcm", series)


def test_no_segmentation_is_refused(tmp_path: Path, series: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"no")
    assert "a.dcm: cannot be read" in refused(tmp_path / "a.dcm", series)
    shutil.copy(series / "03.dcm", tmp_path / "b.dcm")
    assert "b.dcm: cannot be read" in refused(tmp_path / "b.dcm", series)


def test_real_segmentation_is_the_label_map_beside_it(tmp_path: Path) -> None:
    folder = real_data("DICOM")
    labels = read_label(folder / "liver_seg.nrrd").array[0]
    slices = read_slices(folder / "ct-3slice")
    (name, mask), *others = read_segments(folder / "liver.dcm", slices).items()
    assert name == "Liver" and not others
    np.testing.assert_array_equal(mask, labels > 0)
    write_segmentation(tmp_path / "again.dcm", labels, {"liver": (1,)}, folder / "ct-3slice")
    np.testing.assert_array_equal(read_segments(tmp_path / "again.dcm", slices)["liver"], labels > 0)
