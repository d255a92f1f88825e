"""Preprocess cases: slice axis first, cropped, normalised to [0, 1], resampled in plane."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autosam_net.arrays import save_array
from autosam_net.data.case import CaseProperties, PreprocessedCase
from autosam_net.data.dataset import CaseFiles, DatasetSpec, training_cases, unlabelled_scans
from autosam_net.data.plan import Plan, Preprocessing, settings_digest
from autosam_net.data.volume import Volume
from autosam_net.errors import AutosamError, DatasetError, PlanError
from autosam_net.files import alone, atomic_folder, remove_folder, remove_leftovers, sha256_of_files
from autosam_net.imageio import count_numbers, read_case, read_label
from autosam_net.jsonio import load, sealed, write_json
from autosam_net.memory import case_mib, demand_free_memory, demand_memory
from autosam_net.parallel import WHOLE, Part, map_cases
from autosam_net.paths import Folders, find_folders
from autosam_net.preprocessing import geometry
from autosam_net.preprocessing.normalization import normalized_planes

COARSEST = 50  # times the plan's spacing; a case of such pixels would be encoded for hours, and show nothing
PREPROCESSING_VERSION = 1  # to be raised when the same settings give other arrays
PIXEL_BYTES = 8  # float32, once as it is and once on disk or on the way there
PREPROCESS_AGAIN = "Run autosam_plan_and_preprocess again; whole cases are kept."


@dataclass(frozen=True)
class StoredCase:
    """The record beside a preprocessed case's arrays.

    Attributes:
        key: what it was made from.
        sha256: over the files of its arrays; None in records of earlier versions.
    """

    key: str
    properties: CaseProperties
    sha256: str | None = None


def preprocess_case(
    name: str, image: Volume, labels: NDArray[np.integer] | None, settings: Preprocessing
) -> PreprocessedCase:
    """Return one case as the encoder's slices need it.

    Args:
        image: `(C, Z, Y, X)` on the raw grid.
        labels: `(Z, Y, X)` on the same grid, or None.

    Raises:
        DatasetError: the number of channels is not the planned one, a voxel is not a finite number, or the pixels are
            far too large for the plan.
    """
    if len(image.array) != len(settings.normalizations):
        raise DatasetError(
            f"{name}: the image has {len(image.array)} channels, the plan was made for {len(settings.normalizations)}. "
            "Give each channel as a file (CASE_0000, CASE_0001 ...), or all in one file; each time frame is a case."
        )
    demand_memory(f"{name}: preprocessing", case_mib(math.prod(image.shape), len(image.array), labels is not None))
    if not all(np.isfinite(plane).all() for channel in image.array for plane in channel):
        raise DatasetError(f"{name}: the image has voxels that are NaN or infinite. Replace them.")
    array = geometry.slice_axis_first(image.array, settings.slice_axis)
    box = geometry.crop_box(array)
    array = geometry.crop(array, box)
    spacing = [step for axis, step in enumerate(image.geometry.spacing) if axis != settings.slice_axis]
    plane = geometry.plane_shape(array.shape[2:], (spacing[0], spacing[1]), settings.spacing)
    demand_free_memory(
        f"{name}: at a spacing of {settings.spacing:g} mm, of pixels of {spacing[0]:g} x {spacing[1]:g} mm, the case",
        len(array) * array.shape[1] * math.prod(plane) * PIXEL_BYTES / 2**20,
        "Correct the wrong one of both, or give the machine more memory.",
    )
    if max(spacing) > COARSEST * settings.spacing:
        raise DatasetError(
            f"{name}: pixels of {spacing[0]:g} x {spacing[1]:g} mm, the plan was made for {settings.spacing:g} mm. "
            "Correct the spacing in the image's header."
        )
    normalized = np.empty((*array.shape[:2], *plane), np.float32)
    for volume, channel, normalization in zip(normalized, array, settings.normalizations, strict=True):
        for target, pixels in zip(volume, normalized_planes(channel, normalization), strict=True):
            target[...] = geometry.resize_planes(pixels[None], plane)[0]
    if labels is not None:
        labels = geometry.crop(geometry.slice_axis_first(labels, settings.slice_axis), box)
        labels = geometry.resize_labels(labels, plane).astype(np.min_scalar_type(labels.max()))
    properties = CaseProperties(
        name, image.shape, image.geometry, settings.slice_axis, box, (array.shape[1], plane[0], plane[1])
    )
    return PreprocessedCase(normalized, labels, properties)


def preprocess_dataset(
    dataset: DatasetSpec,
    plan: Plan,
    folders: Folders | None = None,
    workers: int | None = None,
    part: Part = WHOLE,
) -> list[CaseProperties]:
    """Preprocess all cases of a data set in parallel; return the properties of the labelled, then of the unlabelled.

    A case whose files and settings are those of an earlier run is left alone; each appears whole or not at all;
    what belongs to cases that no longer exist is removed.

    Args:
        workers: processes; all cores if None.
        part: the share of the cases that is done.

    Raises:
        DatasetError: a case has no image, no label map, or another number of channels than planned, or an unlabelled
            one is called like a labelled one.
        ImageFileError: a file cannot be read.
    """
    root = cases_folder(dataset, folders or find_folders())
    root.mkdir(parents=True, exist_ok=True)
    remove_leftovers(root)
    cases = _cases_of(dataset)
    names = {case.name for case in cases}
    for folder in root.iterdir():
        if folder.is_dir() and folder.name not in names and not folder.name.startswith("."):
            with suppress(FileNotFoundError):  # another part may do the same
                remove_folder(folder)
    work = functools.partial(_preprocess_to_disk, root=root, settings=plan.preprocessing)
    memory = largest_case_mib(cases, len(plan.channel_names))
    return map_cases(work, part.of(cases), "preprocess", workers, lambda case: case.name, memory)


def preprocess_scans(
    scans: Sequence[CaseFiles], plan: Plan, root: Path, workers: int | None = None
) -> list[CaseProperties]:
    """Preprocess scans without labels that are no part of the data set, one sub-folder of `root` for each.

    What was made by an earlier run of the same files and settings is left alone.

    Raises:
        DatasetError: a scan has another number of channels than planned.
        ImageFileError: a file cannot be read.
    """
    work = functools.partial(_preprocess_to_disk, root=root, settings=plan.preprocessing)
    memory = largest_case_mib(scans, len(plan.channel_names))
    return map_cases(work, scans, "preprocess", workers, lambda case: case.name, memory)


def largest_case_mib(cases: Iterable[CaseFiles], channels: int) -> float:
    """Return what one process holds at its peak while it measures or preprocesses the largest case.

    Args:
        channels: of each case.
    """
    return max((files_mib(case, channels) for case in cases), default=0.0)


def files_mib(case: CaseFiles, channels: int) -> float:
    """Return what one process holds at its peak while it measures or preprocesses a case; only headers are read."""
    return case_mib(count_numbers(case.images) // channels, channels, case.label is not None)


def _cases_of(dataset: DatasetSpec) -> list[CaseFiles]:
    labelled, unlabelled = training_cases(dataset), unlabelled_scans(dataset)
    for case in labelled:
        if case.label is None or not case.images:
            lacking = "label map in labelsTr" if case.images else "image in imagesTr"
            raise DatasetError(f"{case.name}: no {lacking}. Add it, or remove the case.")
    if twice := sorted({case.name for case in labelled} & {case.name for case in unlabelled}):
        raise DatasetError(f"{twice[0]}: in imagesUn, and a labelled case too. Rename the scan, or remove it there.")
    return [*labelled, *unlabelled]


def cases_folder(dataset: DatasetSpec, folders: Folders) -> Path:
    """Return the folder that holds one sub-folder a preprocessed case."""
    return folders.preprocessed / dataset.name / "cases"


def load_case(folder: Path) -> PreprocessedCase:
    """Return a preprocessed case from its folder, verified, its image memory-mapped.

    Raises:
        PlanError: it has not been preprocessed, is damaged, or is being preprocessed anew.
    """
    stored = load_record(folder)
    try:
        whole = stored.sha256 in (None, sha256_of_files(_array_files(folder)))
        arrays = _mapped_arrays(folder) if whole else []
    except (OSError, ValueError) as error:
        raise PlanError(f"{folder}: a preprocessed case without its arrays ({error}). {PREPROCESS_AGAIN}") from error
    if not whole or load_record(folder) != stored:
        raise PlanError(f"{folder}: the arrays of the preprocessed case are damaged or changing. {PREPROCESS_AGAIN}")
    return _mapped_case(arrays, stored)


def map_case(folder: Path) -> PreprocessedCase:
    """Return a case that `load_case` has verified before, memory-mapped, at the price of opening its files.

    A map that stays holds a file descriptor; whoever goes back to many cases again and again maps each anew.
    """
    return _mapped_case(_mapped_arrays(folder), load_record(folder))


def _mapped_case(arrays: list[NDArray[Any]], stored: StoredCase) -> PreprocessedCase:
    return PreprocessedCase(arrays[0], arrays[1] if len(arrays) > 1 else None, stored.properties)


def _mapped_arrays(folder: Path) -> list[Any]:
    return [np.load(file, "r", allow_pickle=False) for file in _array_files(folder)]


def _array_files(folder: Path) -> list[Path]:
    labels = folder / "labels.npy"
    return [folder / "image.npy", *([labels] if labels.exists() else [])]


def load_record(folder: Path) -> StoredCase:
    """Return the record of a preprocessed case.

    Raises:
        PlanError: it has not been preprocessed.
    """
    if not (folder / "case.json").is_file():
        raise PlanError(
            f"{folder.name}: not preprocessed ({folder} is missing). Run autosam_plan_and_preprocess first."
        )
    try:
        return load(StoredCase, folder / "case.json")
    except PlanError as error:
        raise PlanError(f"{error} {PREPROCESS_AGAIN}") from error


def _preprocess_to_disk(case: CaseFiles, root: Path, settings: Preprocessing) -> CaseProperties:
    label_file = [] if case.label is None else [case.label]
    content = sha256_of_files([*case.images, *label_file])
    key = settings_digest(PREPROCESSING_VERSION, content, settings)
    with alone(root / case.name):
        if (stored := _stored_record(root / case.name)) is not None and stored.key == key:
            return stored.properties
        return _write_case(case, root / case.name, key, settings)


def _write_case(case: CaseFiles, folder: Path, key: str, settings: Preprocessing) -> CaseProperties:
    labels = None if case.label is None else read_label(case.label).array[0]
    result = preprocess_case(case.name, read_case(case.images), labels, settings)
    with atomic_folder(folder) as temporary:
        save_array(temporary / "image.npy", result.image)
        if result.labels is not None:
            save_array(temporary / "labels.npy", result.labels)
        record = StoredCase(key, result.properties, sha256_of_files(_array_files(temporary)))
        write_json(temporary / "case.json", sealed(record))
    return result.properties


def _stored_record(folder: Path) -> StoredCase | None:
    """Return the record of a case that is whole, None where it is missing, damaged or of an earlier version."""
    try:
        stored = load_record(folder)
        return stored if sha256_of_files(_array_files(folder)) == stored.sha256 else None
    except (AutosamError, OSError):
        return None
