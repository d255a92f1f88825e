"""Cases on their way to the encoder, and what a second run leaves alone."""

from __future__ import annotations

import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autosam_net.data.dataset import DatasetSpec
from autosam_net.data.plan import Normalization, Preprocessing
from autosam_net.data.volume import Geometry, Volume
from autosam_net.embedding.embed import embed_dataset
from autosam_net.errors import AutosamError, DatasetError, PlanError
from autosam_net.paths import Folders
from autosam_net.preprocessing.geometry import resize_labels, restore
from autosam_net.preprocessing.preprocess import cases_folder, load_case, preprocess_case, preprocess_dataset
from tests.support import Prepared

SETTINGS = Preprocessing(slice_axis=1, spacing=1.5, normalizations=(Normalization("percentile", 0.5, 99.5),))


def volume(shape: tuple[int, int, int] = (20, 6, 24)) -> Volume:
    array = np.random.default_rng(0).random((1, *shape)).astype(np.float32)
    array[:, :3] = 0
    return Volume(array, Geometry((1.0, 8.0, 1.0)))


def test_slices_come_first_and_planes_are_isotropic() -> None:
    case = preprocess_case("case", volume(), np.zeros((20, 6, 24), np.uint8), SETTINGS)
    assert case.image.shape == (1, 6, round(17 / 1.5), 16)  # three empty rows are cropped
    assert case.image.dtype == np.float32
    assert case.labels is not None and case.labels.shape == case.image.shape[1:]
    assert case.properties.shape == case.image.shape[1:]


def test_labels_come_back_to_the_raw_grid() -> None:
    labels = np.zeros((20, 6, 24), np.uint8)
    labels[6:16, 1:5, 5:19] = 2
    case = preprocess_case("case", volume(), labels, SETTINGS)
    assert case.labels is not None
    back = restore(resize_labels(case.labels, case.properties.cropped_shape[1:]), case.properties)
    assert back.shape == labels.shape
    assert (back == labels).mean() > 0.97


def test_another_number_of_channels_is_refused() -> None:
    two = Volume(np.zeros((2, 3, 4, 5), np.float32), Geometry((1.0, 1.0, 1.0)))
    with pytest.raises(DatasetError, match="case: the image has 2 channels, the plan was made for 1"):
        preprocess_case("case", two, None, SETTINGS)


def test_what_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(AutosamError, match=r"case: at a spacing of 1e-05 mm, .* GiB of memory, .* are free. Correct"):
        preprocess_case("case", volume(), None, replace(SETTINGS, spacing=1e-5))


def test_pixels_of_a_metre_are_refused() -> None:
    metres = Volume(np.arange(32.0, dtype=np.float32).reshape(1, 2, 4, 4), Geometry((5.0, 1000.0, 1000.0)))
    settings = replace(SETTINGS, slice_axis=0, spacing=2.0)
    with pytest.raises(DatasetError, match=r"case: pixels of 1000 x 1000 mm, the plan was made for 2 mm\. Correct the"):
        preprocess_case("case", metres, None, settings)


def test_memory_stays_a_few_times_that_of_the_image() -> None:
    big = Volume(np.random.default_rng(0).random((1, 40, 200, 200), dtype=np.float32), Geometry((3.0, 1.0, 1.0)))
    settings = Preprocessing(slice_axis=0, spacing=1.0, normalizations=(Normalization("ct", 0.2, 0.8),))
    tracemalloc.start()
    preprocess_case("case", big, None, settings)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * big.array.nbytes  # an image in float64 alone would be two more


@pytest.fixture
def copied(prepared: Prepared, tmp_path: Path) -> tuple[DatasetSpec, Folders]:
    """Return a copy of the phantom that a test may change, and folders of its own."""
    folders = Folders(tmp_path / "raw", tmp_path / "preprocessed", tmp_path / "results")
    shutil.copytree(prepared.dataset.folder, folders.raw / prepared.dataset.name)
    return replace(prepared.dataset, folder=folders.raw / prepared.dataset.name), folders


@pytest.mark.parametrize(("folder", "lacking"), [("labelsTr", "label map"), ("imagesTr", "image")])
def test_a_case_without_one_of_its_files_is_named(
    prepared: Prepared, copied: tuple[DatasetSpec, Folders], folder: str, lacking: str
) -> None:
    dataset, folders = copied
    file = sorted((dataset.folder / folder).iterdir())[0]
    file.unlink()
    case = file.name.removesuffix(dataset.file_ending).removesuffix("_0000")
    with pytest.raises(DatasetError, match=f"{case}: no {lacking} in {folder}. Add it, or remove the case."):
        preprocess_dataset(dataset, prepared.plan, folders, workers=1)


def test_old_cases_and_leftovers_go_and_other_files_stay(
    prepared: Prepared, copied: tuple[DatasetSpec, Folders]
) -> None:
    dataset, folders = copied
    root = cases_folder(dataset, folders)
    for name in ("gone", ".writing-killed"):
        (root / name).mkdir(parents=True)
    (root / ".DS_Store").touch()
    preprocess_dataset(dataset, prepared.plan, folders, workers=1)
    names = {path.name for path in root.iterdir()}
    assert not names & {"gone", ".writing-killed"}
    assert ".DS_Store" in names


def put_into_images_un(dataset: DatasetSpec, name: str | None) -> Path:
    """Copy the first image there under another name, or under its own, and return where it was."""
    first = sorted((dataset.folder / "imagesTr").iterdir())[0]
    (dataset.folder / "imagesUn").mkdir()
    shutil.copy(first, dataset.folder / "imagesUn" / (name or first.name))
    return first


def test_scans_in_images_un_are_preprocessed_without_labels(
    prepared: Prepared, copied: tuple[DatasetSpec, Folders]
) -> None:
    dataset, folders = copied
    known = put_into_images_un(dataset, f"scan9_0000{dataset.file_ending}")
    preprocess_dataset(dataset, prepared.plan, folders, workers=1)
    scan = load_case(cases_folder(dataset, folders) / "scan9")
    same = load_case(cases_folder(dataset, folders) / known.name.removesuffix(f"_0000{dataset.file_ending}"))
    assert scan.labels is None and same.labels is not None
    np.testing.assert_array_equal(scan.image, same.image)
    (entry,) = embed_dataset(dataset, prepared.plan, folders, ["scan9"])
    assert set(entry.present) == {(0,)}


def test_an_unlabelled_scan_called_like_a_labelled_case_is_refused(
    prepared: Prepared, copied: tuple[DatasetSpec, Folders]
) -> None:
    dataset, folders = copied
    put_into_images_un(dataset, None)
    with pytest.raises(
        DatasetError, match=r"in imagesUn, and a labelled case too. Rename the scan, or remove it there"
    ):
        preprocess_dataset(dataset, prepared.plan, folders, workers=1)


def test_only_what_changed_is_redone(prepared: Prepared, copied: tuple[DatasetSpec, Folders]) -> None:
    dataset, folders = copied
    preprocess_dataset(dataset, prepared.plan, folders, workers=1)
    root = cases_folder(dataset, folders)
    times = {path.name: (path / "case.json").stat().st_mtime_ns for path in root.iterdir()}
    first, second = sorted(times)[:2]
    source, target = (dataset.folder / "imagesTr" / f"{name}_0000{dataset.file_ending}" for name in (first, second))
    shutil.copy(source, target)
    preprocess_dataset(dataset, prepared.plan, folders, workers=1)
    changed = {path.name for path in root.iterdir() if (path / "case.json").stat().st_mtime_ns != times[path.name]}
    assert changed == {second}
    finer = replace(prepared.plan, preprocessing=replace(prepared.plan.preprocessing, spacing=1.9))
    preprocess_dataset(dataset, finer, folders, workers=1)
    assert (
        load_case(root / first).image.shape
        != load_case(cases_folder(prepared.dataset, prepared.folders) / first).image.shape
    )


def test_a_case_without_preprocessing_says_so(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"patient9: not preprocessed .* Run autosam_plan_and_preprocess first"):
        load_case(tmp_path / "patient9")
