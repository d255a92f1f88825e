"""autosam_convert_msd: a task of the Medical Segmentation Decathlon as a raw data set."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autosam_net.commands.cli import folders_of, new_parser, run
from autosam_net.errors import DatasetError, ImageFileError, PlanError, UsageError
from autosam_net.jsonio import from_json, read_json
from autosam_net.parallel import map_cases
from dataset_conversion.raw_writer import (
    Copy,
    RawDescription,
    add_converter_flags,
    copy_files,
    dataset_number,
    existing_folder,
    list_some,
    new_raw_dataset,
    report,
)

ENDING = ".nii.gz"
TASK = re.compile(r"Task(\d+)_(.+)")


@dataclass(frozen=True)
class Task:
    """What the task's dataset.json says.

    Attributes:
        training: image and label files of each case.
        tests: image files without labels.
    """

    name: str
    modalities: tuple[str, ...]
    labels: dict[str, int]
    training: tuple[tuple[Path, Path], ...]
    tests: tuple[Path, ...]
    remarks: dict[str, str]


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = new_parser("Turn a task of the Medical Segmentation Decathlon into a raw data set.")
    parser.add_argument("-i", "--input", type=Path, required=True, metavar="DIR", help="the folder TaskNN_Name")
    parser.add_argument(
        "-d", "--dataset", type=dataset_number, metavar="ID", help="its number (default: that of the task)"
    )
    add_converter_flags(parser)
    return run(_convert, parser, argv)


def convert_msd(
    source: Path, raw: Path, identifier: int | None = None, overwrite: bool = False, workers: int | None = None
) -> RawDescription:
    """Write `DatasetNNN_Name` for the folder `TaskNN_Name`; images of several channels are split, others copied.

    Raises:
        DatasetError: dataset.json is missing or wrong, files are missing, or the data set exists.
        ImageFileError: an image has not the channels that dataset.json names.
        UsageError: there is no such folder, or no number can be told from its name.
    """
    source = existing_folder(source)
    task = read_task(source)
    match = TASK.fullmatch(source.name)
    if identifier is None and match is None:
        raise UsageError(f"{source.name}: expected a folder named TaskNN_Name. Give the number with -d.")
    number = identifier if identifier is not None else int(match.group(1))  # type: ignore[union-attr]
    name = match.group(2) if match else re.sub(r"[^A-Za-z0-9_-]+", "_", task.name)
    description = RawDescription(number, name, task.modalities, task.labels, ENDING, remarks=task.remarks)
    with new_raw_dataset(description, raw, overwrite) as folder:
        images = [(image, "Tr") for image, _ in task.training] + [(image, "Ts") for image in task.tests]
        copies = [Copy(label, f"labelsTr/{_case(image)}{ENDING}") for image, label in task.training]
        if len(task.modalities) == 1:
            copies += [Copy(image, f"images{part}/{_case(image)}_0000{ENDING}") for image, part in images]
        else:
            jobs = [(image, folder / f"images{part}", task.modalities) for image, part in images]
            map_cases(_split_channels, jobs, "split channels", workers, lambda job: job[0].name)
        copy_files(copies, folder, workers)
    return description


def read_task(folder: Path) -> Task:
    """Return what a task's folder holds; the files that macOS leaves behind (`._name`) are ignored.

    Raises:
        DatasetError: dataset.json is missing or wrong, or files that it lists are missing.
    """
    where = str(folder / "dataset.json")
    try:
        content = read_json(folder / "dataset.json")
        content = from_json(dict[str, Any], content, where)
        modalities = from_json(dict[str, str], content.get("modality"), f"{where}: modality")
        labels = from_json(dict[str, str], content.get("labels"), f"{where}: labels")
        pairs = from_json(list[dict[str, str]], content.get("training"), f"{where}: training")
    except PlanError as error:
        raise DatasetError(f"{error}. Give the unpacked folder of a Decathlon task.") from error
    try:
        training = tuple((folder / pair["image"], folder / pair["label"]) for pair in pairs)
    except KeyError as error:
        raise DatasetError(f"{where}: training: an entry has no key {error}. Download the task again.") from error
    missing = [path.name for pair in training for path in pair if not path.is_file()]
    if missing:
        raise DatasetError(f"{where}: lists files that are missing: {list_some(missing)}. Download the task again.")
    return Task(
        name=str(content.get("name", folder.name)),
        modalities=tuple(modalities[key] for key in sorted(modalities, key=int)),
        labels=_labels(labels, where),
        training=training,
        tests=tuple(path for path in sorted((folder / "imagesTs").glob("*" + ENDING)) if path.name[0] != "."),
        remarks={
            ours: str(content[theirs])
            for theirs, ours in (("description", "description"), ("reference", "reference"), ("licence", "license"))
            if content.get(theirs)
        },
    )


def _labels(declared: dict[str, str], where: str) -> dict[str, int]:
    """Return name -> value; value 0 is called `background` whatever its name was."""
    try:
        values = {int(value): name for value, name in declared.items()}
    except ValueError as error:
        raise DatasetError(f"{where}: labels: expected value -> name with whole numbers, found {declared}") from error
    names = [name for value, name in values.items() if value != 0]
    if len(set(names)) < len(names):
        raise DatasetError(f"{where}: labels: a name stands for two values: {', '.join(names)}. Rename one.")
    return {"background": 0, **{name: value for value, name in sorted(values.items()) if value != 0}}


def _split_channels(job: tuple[Path, Path, tuple[str, ...]]) -> None:
    import SimpleITK as sitk

    from autosam_net.imageio.simpleitk import load_image, save

    path, target, modalities = job
    image = load_image(path)
    size = image.GetSize()
    if len(size) != 4 or size[3] != len(modalities):
        raise ImageFileError(
            f"{path}: has size {' x '.join(map(str, size))}, expected a fourth axis of {len(modalities)} channels "
            f"({', '.join(modalities)}). Correct modality in dataset.json, or the file."
        )
    for index in range(size[3]):
        channel = sitk.Extract(image, (*size[:3], 0), (0, 0, 0, index))
        save(channel, target / f"{_case(path)}_{index:04d}{ENDING}")


def _case(path: Path) -> str:
    return path.name.removesuffix(ENDING)


def _convert(arguments: argparse.Namespace) -> None:
    raw = folders_of(arguments).raw
    description = convert_msd(arguments.input, raw, arguments.dataset, arguments.overwrite, arguments.workers)
    report(description, arguments)
