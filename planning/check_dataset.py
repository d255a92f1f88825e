"""Find everything that is wrong with a raw data set, and name it all at once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.dataset import CaseFiles, DatasetSpec
from autosam_net.data.volume import Geometry, Volume
from autosam_net.errors import AutosamError, DatasetError
from autosam_net.imageio import READERS, read_case, read_image, read_label, split_ending

log = logging.getLogger("autosam_net.planning")

SAME_PLACE = 0.01  # fraction of a voxel by which headers may differ through rounding
TOLERATED = 0.5  # fraction of a voxel: more than that and labels lie on other tissue
LISTED = 5  # names spelled out in a line, of many


@dataclass(frozen=True)
class Problem:
    """One thing that must be corrected before anything else can be done.

    Attributes:
        case: name, or None where the whole data set is meant.
        expected: empty where `found` says it already.
    """

    case: str | None
    file: Path
    found: str
    expected: str
    cure: str

    @property
    def line(self) -> str:
        """Return the problem as one line."""
        where = self.file.name if self.case is None else f"{self.case}: {self.file.name}"
        text = f"found {self.found}; expected {self.expected}" if self.expected else self.found
        return " ".join(f"{where}: {text}. {self.cure}".split())


@dataclass(frozen=True)
class Notice:
    """Something worth knowing about a case that keeps nothing from working."""

    case: str
    text: str


@dataclass(frozen=True)
class CheckedCase:
    """A case as it was read, with what is wrong with it.

    Attributes:
        image: `(C, Z, Y, X)`, None where it could not be read.
        label: `(1, Z, Y, X)`, None where it could not be read.
    """

    problems: tuple[Problem, ...]
    notices: tuple[Notice, ...]
    image: Volume | None
    label: Volume | None


def check_structure(dataset: DatasetSpec, cases: Sequence[CaseFiles]) -> list[Problem]:
    """Return where dataset.json and the files of the data set do not fit each other; no image is opened."""
    problems = _ending_problems(dataset)
    json_file = dataset.folder / "dataset.json"
    if not cases:
        folder = dataset.folder / "imagesTr"
        found = "no such folder" if not folder.is_dir() else f"no *{dataset.file_ending} file"
        cure = "Convert your data into this folder, or correct file_ending in dataset.json."
        return [*problems, Problem(None, folder, found, f"images CASE_0000{dataset.file_ending}", cure)]
    if len(cases) != dataset.num_training:
        cure = f"Set numTraining to {len(cases)}, or bring the files that are missing."
        problems.append(
            Problem(None, json_file, f"numTraining {dataset.num_training}", f"{len(cases)}, the cases there are", cure)
        )
    for case in cases:
        problems += _file_problems(dataset, case)
    return problems + _name_problems(cases)


def check_case(case: CaseFiles, dataset: DatasetSpec) -> CheckedCase:
    """Read one case and return it with everything that is wrong with it; the label is checked even without an image."""
    image, problems = _read_images(case)
    label, label_problems = _read_label(case)
    problems += label_problems
    notices: list[Notice] = []
    if image is not None:
        problems += _channel_problems(case, image, dataset)
        problems += _intensity_problems(case, image)
        notices += _intensity_notices(case, image)
    if label is not None and case.label is not None:
        problems += _value_problems(case, case.label, label, dataset)
        if not np.isin(label.array, dataset.labels.foreground_values).any():
            notices.append(Notice(case.name, "the label has no foreground"))
    if image is not None and label is not None and case.label is not None:
        mismatch = grid_mismatch(image, label)
        if isinstance(mismatch, tuple):
            cure = "Convert the case again, or resample the label onto the image's grid."
            problems.append(Problem(case.name, case.label, mismatch[0], f"{mismatch[1]} as in the image", cure))
        elif mismatch:
            notices.append(Notice(case.name, mismatch))
    return CheckedCase(tuple(problems), tuple(notices), image, label)


def grid_mismatch(image: Volume, other: Volume) -> tuple[str, str] | str:
    """Return how the grid of `other` differs from that of `image`.

    Returns:
        (found, expected) where they do not fit; a remark where corners are less than half a voxel apart; "" otherwise.
    """
    if image.shape != other.shape:
        return f"shape {_numbers(other.shape)}", f"shape {_numbers(image.shape)} (Z, Y, X)"
    one, two = image.geometry, other.geometry
    if one.dimensions != two.dimensions or not (one.calibrated and two.calibrated):
        return ""  # nothing that could be compared: a plain image has no place in space
    apart = corner_displacement(image.shape, one, two)
    voxel = min(one.spacing[3 - one.dimensions :])
    if apart <= SAME_PLACE * voxel:
        return ""
    if apart <= TOLERATED * voxel:
        return "image and label headers differ by less than half a voxel; the image's counts"
    if not np.allclose(one.spacing, two.spacing, rtol=1e-3):
        return f"spacing {_numbers(two.spacing)} mm", f"spacing {_numbers(one.spacing)} mm (Z, Y, X)"
    return f"a grid whose corners lie up to {apart:.3g} mm away", "the same origin and direction (under half a voxel)"


def corner_displacement(shape: Sequence[int], one: Geometry, two: Geometry) -> float:
    """Return the largest distance (mm) between the same corner of an array `shape` (Z, Y, X) in two geometries."""
    corners = [np.array(corner) for corner in product(*((0, size - 1) for size in shape))]
    return max(float(np.linalg.norm(_position(corner, one) - _position(corner, two))) for corner in corners)


def refuse(problems: Sequence[Problem], dataset: DatasetSpec) -> None:
    """Raise if there is any problem; of several, each is logged as one line first.

    Raises:
        DatasetError: one line: the problem, or how many there are.
    """
    if not problems:
        return
    if len(problems) == 1:
        raise DatasetError(problems[0].line)
    for problem in problems:
        log.error(problem.line)
    cases = {problem.case for problem in problems} - {None}
    raise DatasetError(
        f"{len(problems)} problems in {len(cases)} case{'s' * (len(cases) != 1)} of {dataset.name}; see above"
    )


def log_notices(notices: Iterable[Notice]) -> None:
    """Log the notices, one line for all cases that have the same."""
    cases: dict[str, list[str]] = {}
    for notice in notices:
        cases.setdefault(notice.text, []).append(notice.case)
    for text, names in sorted(cases.items()):
        log.info("%s: %s", list_names(sorted(names)), text)


def list_names(names: Sequence[str]) -> str:
    """Return the names, only the first few of many."""
    rest = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + rest


def _ending_problems(dataset: DatasetSpec) -> list[Problem]:
    json_file, ending = dataset.folder / "dataset.json", dataset.file_ending
    if ending not in READERS:
        cure = "Correct file_ending, with its dot, or convert the files."
        return [Problem(None, json_file, f"file_ending {ending!r}", f"one of {', '.join(READERS)}", cure)]
    if dataset.listed_cases is not None:
        return []
    strays = []
    for folder in (dataset.folder / "imagesTr", dataset.folder / "labelsTr"):
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        strays += [path for path in files if not path.name.startswith(".") and _is_other_image(path, ending)]
    if not strays:
        return []
    names = list_names([path.name for path in strays])
    found = f"{len(strays)} image file{'s' * (len(strays) > 1)} with another ending ({names})"
    cure = "Convert or remove them, or correct file_ending in dataset.json."
    return [Problem(None, strays[0].parent, found, f"only *{ending}, the file_ending of dataset.json", cure)]


def _is_other_image(path: Path, ending: str) -> bool:
    try:
        return split_ending(path.name)[1] != ending
    except AutosamError:
        return False  # no image: notes, tables


def _file_problems(dataset: DatasetSpec, case: CaseFiles) -> list[Problem]:
    problems = []
    ending = dataset.file_ending
    if not case.images:
        file = dataset.folder / "imagesTr" / f"{case.name}_0000{ending}"
        problems.append(
            Problem(case.name, file, "a label without an image", "this file", "Add the image, or remove the label.")
        )
    if case.label is None:
        file = dataset.folder / "labelsTr" / f"{case.name}{ending}"
        cure = "Add the label, or move the images to imagesTs."
        problems.append(Problem(case.name, file, "no such file", "a label for every image in imagesTr", cure))
    if dataset.listed_cases is None:
        return problems + _channel_file_problems(dataset, case)
    listed = [*case.images, *([case.label] if case.label else [])]
    cure = "Correct the key `dataset` of dataset.json, or bring the file."
    return problems + [
        Problem(case.name, path, "no such file", "the file that dataset.json lists", cure)
        for path in listed
        if not path.is_file()
    ]


def _channel_file_problems(dataset: DatasetSpec, case: CaseFiles) -> list[Problem]:
    ending, found = dataset.file_ending, [path.name for path in case.images]
    expected = [f"{case.name}_{channel:04d}{ending}" for channel in range(len(dataset.channel_names))]
    alone = len(found) == 1 and found[0] in (expected[0], case.name + ending)  # one file may hold all channels
    if not found or alone or found == expected:
        return []
    wrong = sorted({*found} ^ {*expected})[0]
    channels = f"{len(expected)} channel{'s' * (len(expected) > 1)} of dataset.json"
    cure = "Add the missing channel, rename the file, or correct channel_names."
    text = f"{', '.join(expected)}: the {channels}"
    return [Problem(case.name, dataset.folder / "imagesTr" / wrong, f"files {', '.join(found)}", text, cure)]


def _name_problems(cases: Sequence[CaseFiles]) -> list[Problem]:
    seen: dict[str, CaseFiles] = {}
    problems = []
    for case in cases:
        first = seen.setdefault(case.name.casefold(), case)
        if first is not case:
            file = (*case.images, case.label or Path(case.name))[0]
            cure = "Rename one: not every file system keeps them apart."
            problems.append(Problem(case.name, file, f"the same name as {first.name}", "different names", cure))
    return problems


def _read_images(case: CaseFiles) -> tuple[Volume | None, list[Problem]]:
    if not case.images:
        return None, []
    try:
        return read_case(case.images), []
    except AutosamError as error:
        problems = [problem for path in case.images for problem in _unreadable(case, path)]
        return None, problems or _channel_mismatch(case) or [_as_problem(case, case.images[0], error)]


def _unreadable(case: CaseFiles, path: Path) -> list[Problem]:
    try:
        read_image(path)
    except AutosamError as error:
        return [_as_problem(case, path, error)]
    return []


def _channel_mismatch(case: CaseFiles) -> list[Problem]:
    first = read_image(case.images[0])
    problems = []
    for path in case.images[1:]:
        mismatch = grid_mismatch(first, read_image(path))
        if isinstance(mismatch, tuple):
            expected = f"{mismatch[1]} as in {case.images[0].name}"
            cure = "Resample all channels of a case onto one grid."
            problems.append(Problem(case.name, path, mismatch[0], expected, cure))
    return problems


def _read_label(case: CaseFiles) -> tuple[Volume | None, list[Problem]]:
    if case.label is None:
        return None, []
    try:
        return read_label(case.label), []
    except AutosamError as error:
        return None, [_as_problem(case, case.label, error)]


def _as_problem(case: CaseFiles, file: Path, error: AutosamError) -> Problem:
    text = str(error).removeprefix(f"{file}: ").removeprefix(f"{file.name}: ")
    found, _, cure = text.rpartition(". ")  # a reader's message ends with its cure
    return Problem(case.name, file, found or text, "", cure if found else "Copy or convert the file again.")


def _channel_problems(case: CaseFiles, image: Volume, dataset: DatasetSpec) -> list[Problem]:
    found, expected = image.array.shape[0], len(dataset.channel_names)
    if found == expected or (len(case.images) > 1 and len(case.images) != expected):
        return []  # the second: files are missing, which the check of the structure says
    names = ", ".join(dataset.channel_names)
    files = ", ".join(f"_{channel:04d}" for channel in range(expected))
    cure = f"Bring the files {files} of this case, or correct channel_names in dataset.json."
    if found > expected:
        cure += " If the file holds time frames, save each as a case of its own."
    text = f"{found} channel{'s' * (found > 1)}"
    return [Problem(case.name, case.images[0], text, f"{expected} channels ({names}) as in dataset.json", cure)]


def _intensity_problems(case: CaseFiles, image: Volume) -> list[Problem]:
    problems = []
    for index, channel in enumerate(image.array):
        bad = channel.size - int(np.count_nonzero(np.isfinite(channel)))
        if bad:
            file = case.images[min(index, len(case.images) - 1)]
            found = f"NaN or infinity in {bad} voxel(s)"
            cure = "Replace them by the background's value."
            problems.append(Problem(case.name, file, found, "finite intensities", cure))
    if not problems and all(map(_is_constant, image.array)):
        found = f"the one intensity {float(image.array.flat[0]):g} everywhere"
        problems.append(
            Problem(case.name, case.images[0], found, "an image with contrast", "Convert the case again, or remove it.")
        )
    return problems


def _intensity_notices(case: CaseFiles, image: Volume) -> list[Notice]:
    constant = [str(index) for index, channel in enumerate(image.array) if _is_constant(channel)]
    return [Notice(case.name, f"channel {', '.join(constant)} is constant")] if constant else []


def _is_constant(channel: NDArray[np.generic]) -> bool:
    return bool(channel.min() == channel.max())


def _value_problems(case: CaseFiles, file: Path, label: Volume, dataset: DatasetSpec) -> list[Problem]:
    allowed = dataset.labels.allowed_values
    values = [int(value) for value in np.unique(label.array)]
    extra = [value for value in values if value not in allowed]
    if not extra:
        return []
    names = ", ".join(dataset.labels.values)
    many = "s" * (len(extra) > 1)
    shown = list_names([str(value) for value in extra])
    cure = f"Correct the file, or declare label{many} {shown} in dataset.json."
    return [Problem(case.name, file, f"label value{many} {shown}", f"only {_numbers(allowed)} ({names})", cure)]


def _numbers(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})"


def _position(corner: NDArray[np.integer], geometry: Geometry) -> NDArray[np.float64]:
    dimensions = geometry.dimensions
    offsets = (corner * np.array(geometry.spacing))[::-1][:dimensions]  # (x, y, z), the file's order
    direction = np.array(geometry.direction, np.float64).reshape(dimensions, dimensions)
    return np.array(geometry.origin[:dimensions], np.float64) + direction @ offsets
