"""autosam_convert_dicom: DICOM series with DICOM-SEG or other label maps as a raw data set of NIfTI."""

from __future__ import annotations

import argparse
import csv
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autosam_net.commands.cli import folders_of, new_parser, run
from autosam_net.errors import DatasetError, ImageFileError, UsageError
from autosam_net.parallel import map_cases
from autosam_net.registry import suggest
from dataset_conversion.image_folder import name_labels
from dataset_conversion.raw_writer import (
    RawDescription,
    add_converter_flags,
    check_vacant,
    dataset_number,
    existing_folder,
    list_some,
    new_raw_dataset,
    report,
)

if TYPE_CHECKING:
    from pydicom import Dataset

    from autosam_net.data.volume import Volume
    from autosam_net.imageio.dicom import Slice

log = logging.getLogger("autosam_net.convert_dicom")

ENDING = ".nii.gz"
CHANNELS = {"MR": "MRI"}  # modalities that are called otherwise in dataset.json


@dataclass(frozen=True)
class Series:
    """A folder of slices.

    Attributes:
        case: the folder's path below the one given, joined with `_`.
        patient: PatientID; stays out of the data set.
    """

    case: str
    folder: Path
    uid: str
    patient: str
    modality: str


@dataclass(frozen=True)
class Segmentation:
    """A DICOM-SEG, the series that it was drawn on, and the names of its segments."""

    file: Path
    series: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """A series and its labels: DICOM-SEG, or one label map of another format, or nothing."""

    series: Series
    segmentations: tuple[Segmentation, ...] = ()
    label_map: Path | None = None


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = new_parser(
        "Turn DICOM series into a raw data set of NIfTI. A DICOM-SEG says itself which series it belongs to; other "
        "label maps are named as the folder of their series (a/b/*.dcm: a_b.nii.gz). Series without labels become "
        "test cases."
    )
    add = parser.add_argument
    add(
        "-i",
        "--input",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with a folder for each series, at any depth",
    )
    add("-m", "--masks", type=Path, metavar="DIR", help="folder of DICOM-SEG or label maps (default: DICOM-SEG in -i)")
    add("-d", "--dataset", type=dataset_number, required=True, metavar="ID", help="number of the data set, 1-999")
    add("-n", "--name", required=True, metavar="NAME", help="name of the data set")
    add(
        "--labels",
        nargs="+",
        metavar="NAME",
        help="segments to take, as values 1, 2 ...; or names of the values 1, 2 ...",
    )
    add_converter_flags(parser)
    return run(_convert, parser, argv)


def convert_dicom(
    source: Path,
    masks: Path | None,
    raw: Path,
    identifier: int,
    name: str,
    labels: Sequence[str] | None = None,
    overwrite: bool = False,
    workers: int | None = None,
) -> RawDescription:
    """Write `DatasetNNN_NAME` of NIfTI files, and `groups.csv` where the headers tell the patients apart.

    Args:
        source: holds a folder for each series, at any depth.
        masks: holds DICOM-SEG, or label maps named as their cases; if None, the DICOM-SEG in `source` are taken.
        labels: names of the segments to take, in the order of their values (all, if None); for other label maps, the
            names of their values.

    Raises:
        DatasetError: there are no series or no labels, labels of both kinds or several modalities, or the data set
            exists.
        ImageFileError: a series is refused as `read_slices` says, or labels do not lie on its grid.
        UsageError: a folder is missing, or `labels` does not fit what was found.
    """
    check_vacant(identifier, f"Dataset{identifier:03d}_{name}", raw, overwrite)
    cases = find_cases(existing_folder(source), None if masks is None else existing_folder(masks), workers)
    values = {"background": 0, **_label_values(cases, labels, workers)}
    description = RawDescription(identifier, name, (_channel_name(cases),), values, ENDING)
    with new_raw_dataset(description, raw, overwrite) as folder:
        map_cases(
            _write_case, [(case, values, folder) for case in cases], "convert", workers, lambda job: job[0].series.case
        )
        _write_groups(folder, cases)
    return description


def find_cases(source: Path, masks: Path | None, workers: int | None = None) -> list[Case]:
    """Return every series below `source` with its labels, sorted by name.

    Raises:
        DatasetError: there are no series, no labels, both kinds of them, or two series of one name.
    """
    folders = sorted({folder for root in (source, masks) if root for folder in _folders(root)})
    scanned = map_cases(_scan, [(folder, source) for folder in folders], "look", workers, lambda job: job[0].name)
    series = [found for found, _ in scanned if found is not None]
    segmentations = [segmentation for _, found in scanned for segmentation in found]
    label_maps = _label_maps(masks) if masks else {}
    if not series:
        raise DatasetError(f"{source}: no DICOM series found. Give the folder that holds a folder for each series.")
    _refuse_equal_names(series)
    cases = [
        Case(entry, tuple(s for s in segmentations if s.series == entry.uid), label_maps.get(entry.case))
        for entry in sorted(series, key=lambda entry: entry.case)
    ]
    _check_labels(cases, segmentations, label_maps, masks or source)
    return cases


def _folders(root: Path) -> Iterator[Path]:
    yield root
    yield from (path for path in root.rglob("*") if path.is_dir() and not path.name.startswith("."))


def _scan(job: tuple[Path, Path]) -> tuple[Series | None, list[Segmentation]]:
    from autosam_net.imageio.dicom import is_dicom, is_image, read_header
    from autosam_net.imageio.dicom_seg import is_segmentation

    folder, source = job
    headers = [read_header(file) for file in sorted(folder.iterdir()) if is_dicom(file)]
    segmentations = [_segmentation(header) for header in headers if is_segmentation(header)]
    images = [header for header in headers if is_image(header)]
    if not images or not folder.is_relative_to(source):
        return None, segmentations
    parts = folder.relative_to(source).parts or (source.name,)
    first = images[0]
    return Series(
        case=re.sub(r"[^A-Za-z0-9.-]+", "_", "_".join(parts)),
        folder=folder,
        uid=str(first.get("SeriesInstanceUID")),
        patient=str(first.get("PatientID") or ""),
        modality=str(first.get("Modality")),
    ), segmentations


def _segmentation(header: Dataset) -> Segmentation:
    file = Path(header.filename)
    try:
        series = str(header.ReferencedSeriesSequence[0].SeriesInstanceUID)
        names = tuple(str(segment.SegmentLabel) for segment in header.SegmentSequence)
    except (AttributeError, IndexError) as error:
        raise ImageFileError(
            f"{file}: this DICOM-SEG does not say which series it belongs to, or what its segments are ({error}). "
            "Export it again."
        ) from error
    return Segmentation(file, series, names)


def _label_maps(masks: Path) -> dict[str, Path]:
    from autosam_net.imageio import READERS, split_ending

    files = [file for file in sorted(masks.iterdir()) if file.name.lower().endswith(tuple(READERS))]
    return {split_ending(file.name)[0]: file for file in files if not file.name.startswith(".")}


def _refuse_equal_names(series: Sequence[Series]) -> None:
    seen: dict[str, Series] = {}
    for entry in series:
        if (first := seen.setdefault(entry.case, entry)) is not entry:
            raise DatasetError(f"{first.folder} and {entry.folder} would both be case {entry.case}. Rename one.")


def _check_labels(
    cases: Sequence[Case], segmentations: Sequence[Segmentation], label_maps: Mapping[str, Path], where: Path
) -> None:
    used = {segmentation.file for case in cases for segmentation in case.segmentations}
    mapped = {case.label_map for case in cases if case.label_map}
    if used and mapped:
        raise DatasetError(f"{where}: holds both DICOM-SEG and other label maps of these series. Give one kind only.")
    if not used and not mapped:
        names = list_some([case.series.case for case in cases])
        raise DatasetError(
            f"{where}: no DICOM-SEG refers to one of the {len(cases)} series, and no label map is named as one of them "
            f"({names}). Give the folder of the labels with -m."
        )
    strange = {*(segmentation.file for segmentation in segmentations), *label_maps.values()} - used - mapped
    if strange:
        log.info("labels without a series, left out: %s", list_some(sorted(file.name for file in strange)))


def _channel_name(cases: Sequence[Case]) -> str:
    modalities = sorted({case.series.modality for case in cases})
    if len(modalities) > 1:
        raise DatasetError(
            f"the series are of several modalities ({', '.join(modalities)}), expected one. Convert each for itself."
        )
    return CHANNELS.get(modalities[0], modalities[0])


def _label_values(cases: Sequence[Case], labels: Sequence[str] | None, workers: int | None) -> dict[str, int]:
    """Return name -> value of the classes, without the background."""
    label_maps = [case.label_map for case in cases if case.label_map]
    if label_maps:
        highest = max(map_cases(_highest_value, label_maps, "examine", workers, lambda path: path.name))
        if labels and highest > len(labels):
            raise UsageError(f"--labels names {len(labels)} classes, the label maps have values up to {highest}.")
        return name_labels(highest, labels)
    found = list(dict.fromkeys(name for case in cases for s in case.segmentations for name in s.names))
    for name in labels or ():
        if name not in found:
            raise UsageError(f"--labels {name}: no segment is called so; {suggest(name, found)}")
    if labels and (left_out := [name for name in found if name not in labels]):
        log.info("segments left out: %s", list_some(left_out))
    return {name: value for value, name in enumerate(labels or found, start=1)}


def _highest_value(file: Path) -> int:
    from autosam_net.imageio import read_label

    return int(read_label(file).array.max())


def _write_case(job: tuple[Case, Mapping[str, int], Path]) -> None:
    from autosam_net.imageio import read_image, simpleitk, write_label
    from autosam_net.imageio.dicom import read_slices

    case, values, folder = job
    volume = read_image(case.series.folder)
    labels: NDArray[np.integer] | None = None
    if case.segmentations:
        labels = _paint(case, read_slices(case.series.folder), values)
    elif case.label_map:
        labels = _on_grid(case.label_map, volume)
    part = "Ts" if labels is None else "Tr"
    image = _as_whole_numbers(volume.array[0])
    simpleitk.write(folder / f"images{part}" / f"{case.series.case}_0000{ENDING}", image, volume.geometry)
    if labels is not None:
        write_label(folder / "labelsTr" / f"{case.series.case}{ENDING}", labels, volume.geometry)


def _paint(case: Case, slices: Sequence[Slice], values: Mapping[str, int]) -> NDArray[np.uint16]:
    """Return the label map `(Z, Y, X)` of all segments that `values` names."""
    from autosam_net.imageio.dicom_seg import read_segments

    labels = np.zeros((len(slices), *slices[0].shape), np.uint16)
    names = {value: name for name, value in values.items()}
    for segmentation in case.segmentations:
        for name, mask in read_segments(segmentation.file, slices).items():
            if name not in values:
                continue
            if (taken := labels[mask]).any():
                raise ImageFileError(
                    f"{segmentation.file}: {name} overlaps {names[int(taken.max())]} in {np.count_nonzero(taken)} "
                    "voxels, expected one label a voxel. Leave one of them out with --labels."
                )
            labels[mask] = values[name]
    return labels


def _on_grid(file: Path, volume: Volume) -> NDArray[np.integer]:
    """Return the label map `(Z, Y, X)` on the grid of the volume, whose axes may be turned and mirrored against it.

    Raises:
        ImageFileError: a label would lose or gain voxels.
    """
    import SimpleITK as sitk

    from autosam_net.imageio import read_label
    from autosam_net.imageio.simpleitk import to_image

    label = read_label(file)
    drawn = label.array[0].astype(np.uint16)
    placed = np.zeros(volume.shape, np.uint16)
    if label.geometry.dimensions == 3:
        image, grid = to_image(drawn, label.geometry), to_image(placed, volume.geometry)
        placed = sitk.GetArrayFromImage(sitk.Resample(image, grid, sitk.Transform(), sitk.sitkNearestNeighbor))
    found, expected = (np.bincount(array.ravel(), minlength=int(drawn.max()) + 1)[1:] for array in (placed, drawn))
    if not np.array_equal(found, expected):
        raise ImageFileError(
            f"{file}: its grid, {_grid(label)}, is not that of its series, {_grid(volume)}. Resample it onto that grid."
        )
    return placed


def _grid(volume: Volume) -> str:
    shape = " x ".join(map(str, volume.shape))
    spacing = " x ".join(f"{step:g}" for step in volume.geometry.spacing)
    origin = ", ".join(f"{place:g}" for place in volume.geometry.origin)
    return f"{shape} voxels of {spacing} mm from ({origin})"


def _as_whole_numbers(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return int16 where that loses nothing, as for Hounsfield units; it is half as large."""
    whole = array.astype(np.int16)
    return whole if np.array_equal(whole, array) else array


def _write_groups(folder: Path, cases: Sequence[Case]) -> None:
    """Write which cases are of one patient, under numbers instead of the PatientID."""
    patients = sorted({case.series.patient for case in cases})
    if "" in patients:
        log.info("not every series has a PatientID: no groups.csv; see the documentation on patients and folds")
        return
    rows = [(case.series.case, f"patient{patients.index(case.series.patient) + 1:04d}") for case in cases]
    with (folder / "groups.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("case", "group"), *rows])


def _convert(arguments: argparse.Namespace) -> None:
    description = convert_dicom(
        arguments.input,
        arguments.masks,
        folders_of(arguments).raw,
        arguments.dataset,
        arguments.name,
        arguments.labels,
        arguments.overwrite,
        arguments.workers,
    )
    report(description, arguments)
