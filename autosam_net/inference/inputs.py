"""The cases that a user means: a folder, a file, a DICOM series, or several of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from autosam_net.data.dataset import CaseFiles
from autosam_net.errors import DatasetError, ImageFileError
from autosam_net.imageio import image_stem, is_image_folder, split_ending

CHANNEL = re.compile(r"(.+)_(\d{4})$")


def find_inputs(paths: Sequence[Path], channels: int) -> list[CaseFiles]:
    """Return the cases among files and what folders hold, sorted by name.

    A folder that is one image (a DICOM series) is taken as a file is. With one channel each file is a case, and a
    `_0000` at the end of its name is no part of the case's name. With several, `CASE_0000`, `CASE_0001` ... belong
    together; a file without such a number (or with one that is no channel's, `IMG_2024`) must hold all channels itself.

    Raises:
        DatasetError: nothing is found, a file does not exist, a case has not all channels, or a folder holds images
            beside a series.
    """
    files = [file for path in paths for file in _files(path)]
    if not files:
        raise DatasetError(
            f"{', '.join(map(str, paths))}: no image files or DICOM series found. Give a folder of images, image "
            "files, or a folder of DICOM slices."
        )
    groups: dict[str, dict[int, Path]] = {}
    for file in files:
        name, channel = _case_and_channel(image_stem(file), channels)
        if channel in groups.setdefault(name, {}):
            raise DatasetError(f"{name}: both {groups[name][channel].name} and {file.name} are given. Remove one.")
        groups[name][channel] = file
    return [_case(name, groups[name], channels) for name in sorted(groups)]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DatasetError(f"{path}: no such file or folder. Give a folder of images, or image files.")
    images = sorted(entry for entry in path.iterdir() if _is_image(entry))
    if not is_image_folder(path):
        return images
    if images:
        raise DatasetError(
            f"{path}: holds the slices of a series and {images[0].name} beside them. Move one of them elsewhere."
        )
    return [path]


def _is_image(entry: Path) -> bool:
    if entry.name.startswith("."):
        return False
    if entry.is_dir():
        return is_image_folder(entry)
    try:
        split_ending(entry.name)
    except ImageFileError:
        return False
    return True


def _case_and_channel(stem: str, channels: int) -> tuple[str, int]:
    match = CHANNEL.match(stem)
    if match is None or int(match.group(2)) >= channels:
        return stem, 0
    return match.group(1), int(match.group(2))


def _case(name: str, files: dict[int, Path], channels: int) -> CaseFiles:
    found = sorted(files)
    if found not in ([0], list(range(channels))):
        raise DatasetError(
            f"{name}: found channels {', '.join(f'{index:04d}' for index in found)}, "
            f"expected 0000 to {channels - 1:04d}. Add the missing files, or rename a file that holds all channels so "
            "that its name ends with no channel number."
        )
    return CaseFiles(name, tuple(files[index] for index in found))
