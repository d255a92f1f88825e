"""A raw data set in nnU-Net v2's layout: `DatasetNNN_NAME/{dataset.json, imagesTr, labelsTr}`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autosam_net.data.labels import LabelSet
from autosam_net.errors import DatasetError, PlanError
from autosam_net.jsonio import from_json, read_json
from autosam_net.paths import Folders, find_folders
from autosam_net.registry import suggest

CHANNEL_SUFFIX = re.compile(r"_\d{4}$")
DESCRIPTION = ("name", "description", "reference", "licence", "license", "release")
"""Keys of dataset.json that nnU-Net leaves to the user."""


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case: one image a channel (or one holding all channels), and a label map if there is one."""

    name: str
    images: tuple[Path, ...]
    label: Path | None = None


@dataclass(frozen=True)
class DatasetSpec:
    """What dataset.json says, with the folder that it lies in.

    Attributes:
        name: the folder's name, `Dataset027_ACDC`.
        channel_names: one a channel; they choose the normalisation ("CT", "MRI", "R", "G", "B" ...).
        group_pattern: regular expression; what its match (or first group) finds in a case's name is the patient.
    """

    name: str
    folder: Path
    channel_names: tuple[str, ...]
    labels: LabelSet
    file_ending: str
    num_training: int
    group_pattern: str | None = None
    listed_cases: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def identifier(self) -> int:
        """Return the number in the folder's name."""
        return int(self.name[7:10])


def read_dataset(folder: Path) -> DatasetSpec:
    """Return the data set in `folder`.

    Raises:
        DatasetError: dataset.json is missing, not JSON, or lacks a key or has one of the wrong kind.
    """
    path = folder / "dataset.json"
    try:
        content = read_json(path)
        return _parse(content, folder, str(path))
    except PlanError as error:
        raise DatasetError(str(error)) from error


def _parse(content: Any, folder: Path, where: str) -> DatasetSpec:
    if not isinstance(content, dict):
        raise DatasetError(f"{where}: expected an object with channel_names, labels, numTraining and file_ending")
    missing = [k for k in ("channel_names", "labels", "numTraining", "file_ending") if k not in content]
    if missing:
        raise DatasetError(
            f"{where}: key{'s' * (len(missing) > 1)} {', '.join(missing)} missing. Add them (nnU-Net v2)."
        )
    channels = from_json(dict[str, str], content["channel_names"], f"{where}: channel_names")
    if sorted(channels) != sorted(str(index) for index in range(len(channels))) or not channels:
        raise DatasetError(
            f"{where}: channel_names must have the keys 0, 1, ..., found {', '.join(channels) or 'none'}"
        )
    order = from_json(tuple[int, ...] | None, content.get("regions_class_order"), f"{where}: regions_class_order")
    values = from_json(dict[str, int | tuple[int, ...]], content["labels"], f"{where}: labels")
    return DatasetSpec(
        name=folder.name,
        folder=folder,
        channel_names=tuple(channels[str(index)] for index in range(len(channels))),
        labels=LabelSet(values, order),
        file_ending=from_json(str, content["file_ending"], f"{where}: file_ending"),
        num_training=from_json(int, content["numTraining"], f"{where}: numTraining"),
        group_pattern=from_json(str | None, content.get("group_pattern"), f"{where}: group_pattern"),
        listed_cases=content.get("dataset"),
    )


def texts_in(content: Mapping[str, Any]) -> dict[str, str]:
    """Return what the content of a dataset.json says in words (`DESCRIPTION`), each text on one line."""
    given = {key: content[key] for key in DESCRIPTION if isinstance(content.get(key), str | int | float)}
    texts = {key: " ".join(str(value).split()) for key, value in given.items()}
    return {key: text for key, text in texts.items() if text}


def find_dataset(identifier: int | str, folders: Folders | None = None) -> DatasetSpec:
    """Return the raw data set with this number (27) or name (`Dataset027_ACDC`).

    Raises:
        DatasetError: there is none, or more than one; the message lists what the raw folder holds.
    """
    raw = (folders or find_folders()).raw
    cure = "Convert your data first, or point --root or autosam_raw to the folder that holds it."
    return read_dataset(raw / dataset_folder_name(identifier, raw, cure))


def dataset_folder_name(identifier: int | str, folder: Path, cure: str) -> str:
    """Return the name of the one `DatasetNNN_...` in `folder` that `identifier` (number or name) means.

    Args:
        cure: what to do where there is none; a sentence for the error.

    Raises:
        DatasetError: there is none, or more than one.
    """
    known = list_datasets(folder)
    text = str(identifier)
    fitting = [n for n in known if n == text or (text.isdigit() and int(n[7:10]) == int(text))]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DatasetError(f"{folder}: data set {text} could be {' or '.join(fitting)}. Give the whole name.")
    hint = suggest(text, known)
    raise DatasetError(f"{folder}: no data set {text}; {hint}{'' if hint.endswith('?') else '.'} {cure}")


def list_datasets(folder: Path) -> list[str]:
    """Return the names of all `DatasetNNN_NAME` folders in `folder`, sorted."""
    if not folder.is_dir():
        return []
    return sorted(
        entry.name for entry in folder.iterdir() if re.match(r"Dataset\d{3}_.+", entry.name) and entry.is_dir()
    )


def training_cases(dataset: DatasetSpec) -> list[CaseFiles]:
    """Return the labelled cases of a data set, sorted by name; files are not opened and may be missing.

    A case is what has a file in imagesTr or labelsTr, or what the key `dataset` of dataset.json lists.
    """
    if dataset.listed_cases is not None:
        return [_listed_case(dataset, name, files) for name, files in sorted(dataset.listed_cases.items())]
    images = group_by_case(dataset.folder / "imagesTr", dataset.file_ending)
    labels = {path.name.removesuffix(dataset.file_ending): path for path in _files(dataset, "labelsTr")}
    names = sorted({*images, *labels})
    return [CaseFiles(name, images.get(name, ()), labels.get(name)) for name in names]


def unlabelled_scans(dataset: DatasetSpec) -> list[CaseFiles]:
    """Return the cases of `imagesUn`, which have no label map, sorted by name."""
    images = group_by_case(dataset.folder / "imagesUn", dataset.file_ending)
    return [CaseFiles(name, files) for name, files in sorted(images.items())]


def label_files(dataset: DatasetSpec, names: Sequence[str]) -> dict[str, Path]:
    """Return case -> label file of the cases called `names`.

    Raises:
        DatasetError: a case has no label file (any more).
    """
    labels = {case.name: case.label for case in training_cases(dataset)}
    found = {name: label for name in names if (label := labels.get(name)) is not None and label.is_file()}
    for name in names:
        if name not in found:
            raise DatasetError(
                f"{name}: no label file in {dataset.folder / 'labelsTr'}. Put it back, or run "
                "autosam_plan_and_preprocess again, which makes new folds of the cases there are."
            )
    return found


def group_by_case(folder: Path, file_ending: str) -> dict[str, tuple[Path, ...]]:
    """Return case name -> image files in the order of their channels (`CASE_0000.ending`, `CASE_0001.ending`).

    A file without a channel number is a case of its own, of one file.
    """
    groups: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*" + file_ending)) if folder.is_dir() else []:
        if not path.name.startswith("."):
            groups.setdefault(CHANNEL_SUFFIX.sub("", path.name.removesuffix(file_ending)), []).append(path)
    return {name: tuple(files) for name, files in groups.items()}


def _files(dataset: DatasetSpec, folder: str) -> list[Path]:
    paths = (dataset.folder / folder).glob("*" + dataset.file_ending)
    return sorted(path for path in paths if not path.name.startswith("."))


def _listed_case(dataset: DatasetSpec, name: str, files: Any) -> CaseFiles:
    where = f"{dataset.folder / 'dataset.json'}: dataset: {name}"
    if not isinstance(files, dict) or not {"images", "label"} <= set(files):
        raise DatasetError(f"{where}: expected the keys images and label")
    images = from_json(tuple[str, ...], files["images"], f"{where}: images")
    label = from_json(str, files["label"], f"{where}: label")
    return CaseFiles(name, tuple(_resolve(dataset, path) for path in images), _resolve(dataset, label))


def _resolve(dataset: DatasetSpec, path: str) -> Path:
    return dataset.folder / os.path.expandvars(path)
