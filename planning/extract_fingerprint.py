"""Measure a data set: every case is read, checked and measured in one pass, and never again while its files stay."""

from __future__ import annotations

import csv
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.dataset import CaseFiles, DatasetSpec, training_cases
from autosam_net.data.fingerprint import CaseFingerprint, ClassStats, Fingerprint, IntensityStats
from autosam_net.data.plan import settings_digest
from autosam_net.data.splits import detect_group_pattern, group_cases
from autosam_net.data.volume import Volume
from autosam_net.errors import DatasetError, PlanError
from autosam_net.files import remove_leftovers, sha256_of_files
from autosam_net.jsonio import load, sealed, write_json, write_json_if_changed
from autosam_net.memory import demand_memory
from autosam_net.parallel import WHOLE, Part, map_cases
from autosam_net.paths import Folders, find_folders
from autosam_net.preprocessing.geometry import crop, crop_box
from autosam_net.preprocessing.preprocess import files_mib, largest_case_mib
from planning.channel_kinds import channel_kinds
from planning.check_dataset import (
    CheckedCase,
    Notice,
    Problem,
    check_case,
    check_structure,
    list_names,
    log_notices,
    refuse,
)

FINGERPRINT_VERSION = 2  # to be raised when the same files give other figures
QUANTILES = np.linspace(0.0, 1.0, 201)
SAMPLED_VOXELS = 2_000_000  # of larger images quantiles are taken from that many voxels, drawn with a fixed seed
SAMPLING_SEED = 20251
PERCENTILES = (0.5, 99.5)  # nnU-Net's, of foreground intensities


@dataclass(frozen=True)
class StoredCase:
    """The record of a measured case; `key` tells what it was made from."""

    key: str
    fingerprint: CaseFingerprint
    notices: tuple[Notice, ...]


@dataclass(frozen=True)
class _Outcome:
    """What became of one case: measured, or problems."""

    problems: tuple[Problem, ...]
    stored: StoredCase | None


def extract_fingerprint(
    dataset: DatasetSpec, folders: Folders | None = None, workers: int | None = None
) -> Fingerprint:
    """Check and measure all labelled cases in parallel; write and return `dataset_fingerprint.json`.

    Cases whose files are those of an earlier run are not read again.

    Raises:
        AutosamError: a case needs more memory than is allowed.
        DatasetError: the data set has problems; with several, each is logged as one line first.
    """
    folders = folders or find_folders()
    stored = measure_part(dataset, WHOLE, folders, workers)
    measured = sorted((entry.fingerprint for entry in stored), key=lambda case: case.name)
    log_notices([*(notice for entry in stored for notice in entry.notices), *_duplicates(measured)])
    fingerprint = assemble(dataset, measured)
    write_json_if_changed(folders.preprocessed / dataset.name / "dataset_fingerprint.json", sealed(fingerprint))
    return fingerprint


def measure_part(dataset: DatasetSpec, part: Part, folders: Folders, workers: int | None = None) -> list[StoredCase]:
    """Check and measure a share of the cases, each kept in a record of its own, from which any later run takes it.

    Raises:
        DatasetError: as `extract_fingerprint` does.
    """
    cases = training_cases(dataset)
    problems = check_structure(dataset, cases)
    records = folders.preprocessed / dataset.name / "fingerprints"
    remove_leftovers(records.parent)
    _forget_others(records, {case.name for case in cases})
    work = functools.partial(_measure_or_remember, dataset=dataset, records=records, broken=_cases_of(problems))
    memory = largest_case_mib(cases, len(dataset.channel_names))
    outcomes = map_cases(work, part.of(cases), "check and measure", workers, lambda case: case.name, memory)
    refuse([*problems, *(problem for outcome in outcomes for problem in outcome.problems)], dataset)
    return [outcome.stored for outcome in outcomes if outcome.stored is not None]


def assemble(dataset: DatasetSpec, cases: Sequence[CaseFingerprint]) -> Fingerprint:
    """Return the figures of the whole data set from those of its cases, sorted by name."""
    stats = [case.channels for case in cases]
    kinds = channel_kinds(dataset.channel_names, stats, dataset.file_ending)
    return Fingerprint(
        dataset=dataset.name,
        cases=tuple(cases),
        channel_kinds=tuple(kind for kind, _ in kinds),
        groups=find_groups(dataset, [case.name for case in cases]),
        foreground_percentiles=tuple(
            _foreground_percentiles([case[channel] for case in stats]) for channel in range(len(kinds))
        ),
        presence={name: sum(name in case.classes for case in cases) for name in dataset.labels.targets},
    )


def find_groups(dataset: DatasetSpec, names: Sequence[str]) -> dict[str, str]:
    """Return case -> patient.

    From `group_pattern` of dataset.json, else `groups.csv` (columns case and group) in the raw folder, else a common
    habit in the names, else each case is a patient of its own.

    Raises:
        DatasetError: groups.csv lacks a column or a case.
        PlanError: group_pattern is no regular expression.
    """
    table = dataset.folder / "groups.csv"
    if dataset.group_pattern is None and table.is_file():
        return read_groups(table, names)
    return group_cases(names, dataset.group_pattern or detect_group_pattern(names))


def read_groups(table: Path, names: Sequence[str]) -> dict[str, str]:
    """Return case -> group out of a csv file with the columns case and group.

    Raises:
        DatasetError: a column or a case is missing.
    """
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, skipinitialspace=True)
        if not {"case", "group"} <= set(rows.fieldnames or ()):
            found = ", ".join(rows.fieldnames or ()) or "none"
            raise DatasetError(f"{table}: found columns {found}; expected case and group. Correct the first line.")
        groups = {row["case"]: row["group"] for row in rows}
    missing = [name for name in names if not groups.get(name)]
    if missing:
        raise DatasetError(f"{table}: no group for {list_names(missing)}. Add {len(missing)} line(s) `case,group`.")
    return {name: groups[name] for name in names}


def measure_case(
    name: str, content: str, image: Volume, labels: NDArray[np.integer], dataset: DatasetSpec
) -> CaseFingerprint:
    """Return the figures of one case.

    Args:
        content: sha256 over its files.
        labels: `(Z, Y, X)` on the grid of `image`.
    """
    foreground = np.isin(labels, dataset.labels.foreground_values)
    spacing = image.geometry.spacing
    classes = {
        target: measure_class(np.isin(labels, values), spacing) for target, values in dataset.labels.targets.items()
    }
    (z0, z1), (y0, y1), (x0, x1) = crop_box(image.array)
    return CaseFingerprint(
        name=name,
        content=content,
        shape=image.shape,
        cropped_shape=(z1 - z0, y1 - y0, x1 - x0),
        spacing=spacing,
        calibrated=image.geometry.calibrated,
        channels=tuple(measure_intensities(channel, foreground) for channel in image.array),
        classes={target: stats for target, stats in classes.items() if stats.voxels},
        foreground=measure_class(foreground, spacing),
    )


def measure_intensities(channel: NDArray[np.generic], foreground: NDArray[np.bool_]) -> IntensityStats:
    """Return the intensity figures of one channel `(Z, Y, X)`, computed in float64."""
    mean = sum(float(plane.sum(dtype=np.float64)) for plane in channel) / channel.size
    # plane by plane: a float64 copy of a whole body would fill the memory
    variance = sum(float(np.square(plane.astype(np.float64) - mean).sum()) for plane in channel) / channel.size
    inside = channel[foreground].astype(np.float64)
    return IntensityStats(
        minimum=float(channel.min()),
        maximum=float(channel.max()),
        mean=mean,
        std=variance**0.5,
        image_quantiles=_quantiles(channel.ravel()),
        foreground_quantiles=_quantiles(inside),
        foreground_mean=float(inside.mean()) if inside.size else 0.0,
        integer=all(bool((plane == np.rint(plane)).all()) for plane in channel),
    )


def measure_class(mask: NDArray[np.bool_], spacing: tuple[float, float, float]) -> ClassStats:
    """Return size and components of one class, given as `(Z, Y, X)`.

    The median-sized component is the one that holds the median voxel when components are ordered by size: among many
    lesions it is a typical one, and a few stray voxels beside an organ do not count.
    """
    from scipy import ndimage

    if not mask.any():
        return ClassStats(0, 0.0, 0, 0.0, (0.0, 0.0, 0.0), (0, 0, 0), (0.0, 0.0, 0.0))
    box = crop_box(mask[None].astype(np.uint8))
    inside = crop(mask, box)
    components, count = ndimage.label(inside, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(components.ravel())[1:]
    order = np.argsort(sizes, kind="stable")
    middle = order[np.searchsorted(np.cumsum(sizes[order]), sizes.sum() / 2)]
    place = ndimage.find_objects(components)[middle]
    depth, height, width = (part.stop - part.start for part in place)
    slices = [int(inside.any(axis=tuple({0, 1, 2} - {axis})).sum()) for axis in range(3)]
    centroid = [start + place for (start, _), place in zip(box, ndimage.center_of_mass(inside), strict=True)]
    voxel = float(np.prod(spacing))
    return ClassStats(
        voxels=int(sizes.sum()),
        volume_mm3=float(sizes.sum() * voxel),
        components=int(count),
        largest_component_mm3=float(sizes.max() * voxel),
        component_extent_mm=(depth * spacing[0], height * spacing[1], width * spacing[2]),
        slices=(slices[0], slices[1], slices[2]),
        centroid_mm=(centroid[0] * spacing[0], centroid[1] * spacing[1], centroid[2] * spacing[2]),
    )


def _measure_or_remember(case: CaseFiles, dataset: DatasetSpec, records: Path, broken: frozenset[str]) -> _Outcome:
    if case.name in broken:  # listed already; what else is wrong with it belongs into the same list
        return _Outcome(_existing(case, dataset).problems, None)
    assert case.label is not None, "the structure was checked"
    content = sha256_of_files([*case.images, case.label])
    key = settings_digest(FINGERPRINT_VERSION, content, dataset.labels, dataset.channel_names)
    file = records / f"{case.name}.json"
    stored = _read_record(file)
    if stored is not None and stored.key == key:
        return _Outcome((), stored)
    demand_memory(f"{case.name}: check and measure", files_mib(case, len(dataset.channel_names)))
    checked = check_case(case, dataset)
    if checked.problems or checked.image is None or checked.label is None:
        return _Outcome(checked.problems, None)
    figures = measure_case(case.name, content, checked.image, checked.label.array[0], dataset)
    stored = StoredCase(key, figures, checked.notices)
    write_json(file, sealed(stored))
    return _Outcome((), stored)


def _existing(case: CaseFiles, dataset: DatasetSpec) -> CheckedCase:
    images = tuple(path for path in case.images if path.is_file())
    label = case.label if case.label is not None and case.label.is_file() else None
    return check_case(CaseFiles(case.name, images, label), dataset)


def _cases_of(problems: Sequence[Problem]) -> frozenset[str]:
    return frozenset(problem.case for problem in problems if problem.case is not None)


def _read_record(file: Path) -> StoredCase | None:
    try:
        return load(StoredCase, file)
    except PlanError:
        return None  # missing or of another version: measured anew


def _forget_others(records: Path, names: set[str]) -> None:
    if not records.is_dir():
        return
    remove_leftovers(records)
    for file in records.glob("*.json"):
        if file.name.removesuffix(".json") not in names:
            file.unlink(missing_ok=True)  # another part may do the same


def _duplicates(cases: Sequence[CaseFingerprint]) -> list[Notice]:
    first: dict[str, str] = {}
    twice = [(case.name, first.setdefault(case.content, case.name)) for case in cases]
    return [Notice(name, f"the same files as {other}") for name, other in twice if name != other]


def _quantiles(values: NDArray[np.generic]) -> tuple[float, ...]:
    if not values.size:
        return ()
    if values.size > SAMPLED_VOXELS:
        values = values[np.random.default_rng(SAMPLING_SEED).integers(0, values.size, SAMPLED_VOXELS)]
    return tuple(float(quantile) for quantile in np.quantile(values.astype(np.float64), QUANTILES))


def _foreground_percentiles(stats: Sequence[IntensityStats]) -> tuple[float, float]:
    """Return percentiles of the mixture of all cases' foregrounds, each of the same weight."""
    present = [entry.foreground_quantiles for entry in stats if entry.foreground_quantiles]
    mixture = np.sort(np.concatenate(present or [entry.image_quantiles for entry in stats]))
    lower, upper = np.percentile(mixture, PERCENTILES)
    return float(lower), float(upper)
