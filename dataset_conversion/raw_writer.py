"""The one place that writes a raw data set in nnU-Net v2's layout: whole, or not at all."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from autosam_net.commands.cli import add_resources, folders_of
from autosam_net.data.dataset import list_datasets
from autosam_net.data.labels import label_problems
from autosam_net.data.splits import group_cases
from autosam_net.errors import DatasetError, UsageError
from autosam_net.files import alone, atomic_folder, remove_leftovers
from autosam_net.jsonio import write_json
from autosam_net.parallel import map_cases

FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")


@dataclass(frozen=True)
class RawDescription:
    """What dataset.json will say.

    Attributes:
        labels: name -> value, `background` 0.
        group_pattern: regular expression that finds the patient in a case's name, where that is known.
        remarks: further keys such as description, reference, license.
    """

    identifier: int
    name: str
    channel_names: tuple[str, ...]
    labels: Mapping[str, int]
    file_ending: str
    group_pattern: str | None = None
    remarks: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder_name(self) -> str:
        """Return `Dataset027_ACDC`."""
        return f"Dataset{self.identifier:03d}_{self.name}"


@dataclass(frozen=True)
class Copy:
    """A file that goes into the data set as it is."""

    source: Path
    target: str


@contextmanager
def new_raw_dataset(description: RawDescription, raw: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder to fill with imagesTr/, labelsTr/ (imagesTs/, labelsTs/); it appears when all is there.

    dataset.json is written at the end, with the number of files in labelsTr; empty folders are left out.

    Raises:
        DatasetError: the data set exists, its number is taken, or its labels are not sound.
    """
    final = raw / description.folder_name
    _check_description(description)
    with alone(final):
        check_vacant(description.identifier, description.folder_name, raw, overwrite)
        remove_leftovers(raw)
        with _filled(final, description) as folder:
            yield folder


@contextmanager
def _filled(final: Path, description: RawDescription) -> Iterator[Path]:
    with atomic_folder(final) as folder:
        for name in FOLDERS:
            (folder / name).mkdir()
        yield folder
        for name in FOLDERS:
            if not any((folder / name).iterdir()):
                (folder / name).rmdir()
        if not (folder / "labelsTr").is_dir():
            raise DatasetError(f"{final.name}: no labelled training case was found. Check the folder given.")
        write_json(folder / "dataset.json", _content(description, folder))


def check_vacant(identifier: int, folder_name: str, raw: Path, overwrite: bool) -> None:
    """Refuse to write over a data set without being asked to, or to give a number twice.

    Raises:
        DatasetError: names what is there.
    """
    for taken in list_datasets(raw):
        if taken == folder_name and not overwrite:
            raise DatasetError(f"{raw / taken} exists. Give --overwrite to replace it, or remove it.")
        if taken != folder_name and int(taken[7:10]) == identifier:
            raise DatasetError(f"number {identifier} is taken by {raw / taken}. Choose another, or remove that folder.")


def copy_files(copies: Sequence[Copy], folder: Path, workers: int | None = None) -> None:
    """Copy files into the data set's folder, side by side."""
    map_cases(_copy, [(entry, folder) for entry in copies], "copy", workers, lambda job: Path(job[0].target).name)


def list_some(names: Sequence[str], most: int = 5) -> str:
    """Return the first names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def add_converter_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that all converters share."""
    parser.add_argument("--overwrite", action="store_true", help="replace the data set if it exists")
    add_resources(parser)


def dataset_number(text: str) -> int:
    """Return a data set's number from the command line.

    Raises:
        ArgumentTypeError: it is not between 1 and 999.
    """
    if not text.isdigit() or not 1 <= int(text) <= 999:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 999, found {text}")
    return int(text)


def existing_folder(path: Path) -> Path:
    """Return the absolute path of a folder that must be there.

    Raises:
        UsageError: it is not.
    """
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder. Check the path given.")
    return path.resolve()


def report(description: RawDescription, arguments: argparse.Namespace) -> None:
    """Print what was written and what to type next."""
    folder = folders_of(arguments).raw / description.folder_name
    ending = description.file_ending
    names = [path.name.removesuffix(ending) for path in sorted((folder / "labelsTr").iterdir())]
    groups = len(set(group_cases(names, description.group_pattern).values()))
    tests = sorted((folder / "imagesTs").glob(f"*_0000{ending}")) if (folder / "imagesTs").is_dir() else []
    patients = f" of {groups} patients" if description.group_pattern else ""
    extra = f", {len(tests)} test cases" if tests else ""
    classes = ", ".join(name for name in description.labels if name != "background")
    print(f"Wrote {folder}")
    print(f"  {len(names)} training cases{patients}{extra}; channels {', '.join(description.channel_names)}; {classes}")
    root = f" --root {arguments.root}" if arguments.root else ""
    print(f"Next: autosam_plan_and_preprocess -d {description.identifier}{root}")


def _check_description(description: RawDescription) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", description.name):
        raise UsageError(f"name {description.name!r}: expected letters, digits, _ and - only. Choose another name.")
    for problem in label_problems(description.labels, None):
        raise DatasetError(f"{description.folder_name}: {problem}")


def _content(description: RawDescription, folder: Path) -> dict[str, object]:
    content: dict[str, object] = {
        "name": description.name,
        "channel_names": {str(index): name for index, name in enumerate(description.channel_names)},
        "labels": description.labels,
        "numTraining": sum(1 for path in (folder / "labelsTr").glob("*" + description.file_ending)),
        "file_ending": description.file_ending,
    }
    if description.group_pattern is not None:
        content["group_pattern"] = description.group_pattern
    return {**content, **description.remarks}


def _copy(job: tuple[Copy, Path]) -> None:
    entry, folder = job
    try:
        shutil.copyfile(entry.source, folder / entry.target)
    except OSError as error:
        raise DatasetError(
            f"{entry.source}: cannot be copied ({error.strerror}). Check the file and the free space."
        ) from error
