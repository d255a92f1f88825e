"""autosam_convert_images: a folder of 2D images and a folder of their masks as a raw data set of .png files."""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autosam_net.commands.cli import folders_of, new_parser, run
from autosam_net.errors import DatasetError, ImageFileError, UsageError
from autosam_net.parallel import map_cases
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

log = logging.getLogger("autosam_net.convert_images")

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
SUFFIXES = ("annotation", "mask", "masks", "seg", "segmentation", "label", "labels", "gt", "groundtruth")
MOST_VALUES = 64  # more distinct values than this are no classes but smoothed edges or a photograph
LOSSY_MARGIN = 64  # a grey value of a jpg mask this near to 0 or 255 still means one of them
LOSSY_SHARE = 0.02  # of the pixels may lie between (the edges that compression smooths)

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Pair:
    """An image, its mask and the name of the case."""

    case: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class PairFacts:
    """What was found in the two files of a pair.

    Attributes:
        channels: 1 for grey values, 3 for colours.
        plain: whether the image file can be copied as it is.
        alpha: whether it has an alpha channel.
        colours: that occur in the mask; a grey value v is (v, v, v).
    """

    channels: int
    plain: bool
    alpha: bool
    colours: frozenset[Colour]


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = new_parser("Turn 2D images with masks into a raw data set; masks belong to images of the same name.")
    add = parser.add_argument
    add("-i", "--images", type=Path, required=True, metavar="IMAGES", help="folder of images")
    add("-m", "--masks", type=Path, required=True, metavar="MASKS", help="folder of masks; may be the same")
    add("-d", "--dataset", type=dataset_number, required=True, metavar="ID", help="number of the data set, 1-999")
    add("-n", "--name", required=True, metavar="NAME", help="name of the data set")
    add("--labels", nargs="+", metavar="NAME", help="names of the classes, without the background, by rising value")
    add(
        "--group-pattern", metavar="REGEX", help="finds the patient in a case's name, so that folds keep patients apart"
    )
    add_converter_flags(parser)
    return run(_convert, parser, argv)


def convert_images(
    images: Path,
    masks: Path,
    raw: Path,
    identifier: int,
    name: str,
    labels: Sequence[str] | None = None,
    group_pattern: str | None = None,
    overwrite: bool = False,
    workers: int | None = None,
) -> RawDescription:
    """Write `DatasetNNN_NAME` of .png files; images that are .png already are copied, masks become values 0..K.

    Raises:
        DatasetError: an image has no mask or more than one, shapes differ, no mask shows anything, or the data set
            exists.
        ImageFileError: a file is damaged, holds several pages, or a mask is none.
        UsageError: a folder is missing, or `labels` does not fit the values in the masks.
    """
    check_vacant(identifier, f"Dataset{identifier:03d}_{name}", raw, overwrite)
    pairs = find_pairs(existing_folder(images), existing_folder(masks))
    facts = map_cases(_examine, pairs, "examine", workers, lambda pair: pair.case)
    colour = any(fact.channels == 3 for fact in facts)
    _announce_channels(facts)
    table = number_colours(frozenset().union(*(fact.colours for fact in facts)), labels)
    _announce_table(table)
    description = RawDescription(
        identifier,
        name,
        ("R", "G", "B") if colour else ("grey",),
        {"background": 0, **name_labels(max(table.values()), labels)},
        ".png",
        group_pattern,
    )
    with new_raw_dataset(description, raw, overwrite) as folder:
        jobs = [(pair, fact, colour, table, folder) for pair, fact in zip(pairs, facts, strict=True)]
        map_cases(_write_pair, jobs, "write", workers, lambda job: job[0].case)
    return description


def find_pairs(images: Path, masks: Path) -> list[Pair]:
    """Return every image with its mask: the file of the same name, or of that name with `_mask` or the like added.

    Raises:
        DatasetError: there are no images, or an image has no mask or several.
    """
    pictures = {path.stem: path for path in _pictures(images)}
    if images == masks:
        candidates = [path for path in pictures.values() if _strip_suffix(path.stem) != path.stem]
        pictures = {stem: path for stem, path in pictures.items() if path not in candidates}
    else:
        candidates = _pictures(masks)
    if not pictures:
        raise DatasetError(f"{images}: no images found ({', '.join(ENDINGS)}). Give the folder that holds the files.")
    found: dict[str, list[Path]] = {stem: [] for stem in pictures}
    for path in candidates:
        stem = path.stem if path.stem in found else _strip_suffix(path.stem)
        if stem in found:
            found[stem].append(path)
        else:
            log.info("%s: no image of this name; the mask is left out", path.name)
    _check_found(found, masks)
    return [Pair(stem, pictures[stem], found[stem][0]) for stem in sorted(pictures)]


def number_colours(colours: frozenset[Colour], labels: Sequence[str] | None) -> dict[Colour, int]:
    """Return colour -> label value: black is 0, the others 1..K by rising value; values that are 0..K stay.

    Raises:
        DatasetError: the masks show nothing but background, or too many different values.
        UsageError: `labels` does not name as many classes as there are values.
    """
    present = sorted(colours - {(0, 0, 0)})
    if not present:
        raise DatasetError("masks: all are empty (0 everywhere), expected at least one class. Check the folder given.")
    if len(present) > MOST_VALUES:
        raise DatasetError(
            f"masks: {len(present)} different values ({list_some([show_colour(c) for c in present])}), expected one a "
            f"class and at most {MOST_VALUES}. Export the masks without smoothed edges, or give the right folder."
        )
    grey = all(c[0] == c[1] == c[2] for c in present)
    classes = len(labels) if labels else len(present)
    if grey and present[-1][0] <= classes:
        return {(value, value, value): value for value in range(classes + 1)}
    if classes != len(present):
        raise UsageError(
            f"--labels names {classes} classes, the masks hold {len(present)} values "
            f"({', '.join(show_colour(c) for c in present)}). Name one class a value, without the background."
        )
    return {(0, 0, 0): 0, **{c: index for index, c in enumerate(present, start=1)}}


def name_labels(classes: int, labels: Sequence[str] | None) -> dict[str, int]:
    """Return name -> value of the classes: those given, else `foreground`, or `class_1`, `class_2` ..."""
    names = labels or (["foreground"] if classes == 1 else [f"class_{value}" for value in range(1, classes + 1)])
    return {name: value for value, name in enumerate(names, start=1)}


def show_colour(colour: Colour) -> str:
    """Return `255` for a grey value, `(255, 0, 0)` for a colour."""
    return str(colour[0]) if colour[0] == colour[1] == colour[2] else str(colour)


def _pictures(folder: Path) -> list[Path]:
    files = [path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.name[0] != "."]
    files.sort(key=lambda path: (path.stem, path.suffix))
    for first, second in pairwise(files):
        if first.stem == second.stem:
            raise DatasetError(
                f"{folder}: {first.name} and {second.name} stand for one case. Remove one; put masks of the same name "
                "as their images into a folder of their own."
            )
    return files


def _strip_suffix(stem: str) -> str:
    for suffix in SUFFIXES:
        for joint in "_-":
            if stem.lower().endswith(joint + suffix):
                return stem[: -len(suffix) - 1]
    return stem


def _check_found(found: Mapping[str, Sequence[Path]], masks: Path) -> None:
    if without := [stem for stem, paths in found.items() if not paths]:
        raise DatasetError(
            f"{masks}: {len(without)} of {len(found)} images have no mask: {list_some(without)}. Add a file of the "
            f"same name, or of that name with _{SUFFIXES[0]}, _{SUFFIXES[1]} or the like, or remove the image."
        )
    for stem, paths in found.items():
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            raise DatasetError(f"{masks}: {stem} has {len(paths)} masks ({names}), expected one. Merge or remove them.")


def _examine(pair: Pair) -> PairFacts:
    image, alpha, palette = _read_picture(pair.image)
    mask = _read_mask(pair.mask)
    if image.shape[2:] != mask.shape[1:]:
        raise DatasetError(
            f"{pair.case}: image is {_size(image.shape[2:])}, mask {pair.mask.name} is {_size(mask.shape[1:])} "
            "(height x width). They must agree: take the mask that was drawn on this image."
        )
    return PairFacts(
        channels=len(image),
        plain=pair.image.suffix == ".png" and not alpha and not palette,
        alpha=alpha,
        colours=_find_colours(mask),
    )


def _find_colours(mask: NDArray[np.integer]) -> frozenset[Colour]:
    """Return the colours in a mask; of a photograph no more than show that it is none."""
    red, green, blue = mask.astype(np.int64)
    codes = np.unique(red << 32 | green << 16 | blue)[: MOST_VALUES + 2]
    return frozenset((int(code >> 32), int(code >> 16 & 0xFFFF), int(code & 0xFFFF)) for code in codes)


def _read_picture(path: Path) -> tuple[NDArray[np.generic], bool, bool]:
    """Return the image `(C, 1, Y, X)`, whether it has an alpha channel and whether it is made of a palette."""
    from PIL import Image, UnidentifiedImageError

    from autosam_net.imageio import READERS

    array = READERS.get(path.suffix.lower()).read(path).array
    if array.shape[1] != 1:
        raise ImageFileError(f"{path}: has {array.shape[1]} pages, expected one 2D image. Save a page a file.")
    try:
        with Image.open(path) as image:
            return array, image.mode in ("RGBA", "LA", "PA"), image.mode in ("P", "PA", "1")
    except UnidentifiedImageError:  # a .tif of numbers that Pillow does not know
        return array, False, False


def _read_mask(path: Path) -> NDArray[np.integer]:
    """Return the mask as colours `(3, Y, X)`; the index of a palette and a grey value become three equal numbers."""
    from autosam_net.imageio import READERS

    reader = READERS.get(path.suffix.lower())
    array = (reader.read_label or reader.read)(path).array
    if array.shape[1] != 1 or not (array.dtype == bool or np.issubdtype(array.dtype, np.integer)):
        raise ImageFileError(
            f"{path}: expected a 2D mask of whole numbers, found {array.shape[1]} pages of {array.dtype}. "
            "Save it as .png with 8 bits."
        )
    if path.suffix.lower() in (".jpg", ".jpeg"):
        array = _undo_compression(array, path)
    return np.broadcast_to(array[:, 0].astype(np.int32), (3, *array.shape[2:]))


def _undo_compression(array: NDArray[np.generic], path: Path) -> NDArray[np.generic]:
    """Return a black and white jpg mask with the values 0 and 255 that it had before it was compressed."""
    grey = array.mean(axis=0, keepdims=True)
    between = (grey > LOSSY_MARGIN) & (grey < 255 - LOSSY_MARGIN)
    if between.mean() > LOSSY_SHARE:
        raise ImageFileError(
            f"{path}: a .jpg mask with values between black and white; compression has changed them. "
            "Export the masks as .png."
        )
    return np.where(grey > 127, 255, 0)


def _announce_channels(facts: Sequence[PairFacts]) -> None:
    total = len(facts)
    if alpha := sum(fact.alpha for fact in facts):
        print(f"Notice: {alpha} of {total} images have an alpha channel (transparency); it is left out.")
    colour = sum(fact.channels == 3 for fact in facts)
    if 0 < colour < total:
        print(f"Notice: {total - colour} grey and {colour} colour images; all are written as RGB (grey repeated).")


def _announce_table(table: Mapping[Colour, int]) -> None:
    if any(colour != (value, value, value) for colour, value in table.items()):
        text = ", ".join(f"{show_colour(colour)} -> {value}" for colour, value in table.items())
        print(f"Notice: mask values are mapped: {text}")


def _write_pair(job: tuple[Pair, PairFacts, bool, dict[Colour, int], Path]) -> None:
    from autosam_net.data.volume import Geometry
    from autosam_net.imageio import write_label
    from autosam_net.imageio.natural import write_picture

    pair, facts, colour, table, folder = job
    target = folder / "imagesTr" / f"{pair.case}_0000.png"
    if facts.plain and (facts.channels == 3) == colour:
        shutil.copyfile(pair.image, target)
    else:
        array, _, _ = _read_picture(pair.image)
        write_picture(target, np.repeat(array, 3, axis=0) if colour and len(array) == 1 else array)
    mask = _read_mask(pair.mask)
    labels = np.zeros(mask.shape[1:], np.uint8)
    for (red, green, blue), value in table.items():
        labels[(mask[0] == red) & (mask[1] == green) & (mask[2] == blue)] = value
    write_label(folder / "labelsTr" / f"{pair.case}.png", labels[None], Geometry((1.0, 1.0, 1.0), dimensions=2))


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _convert(arguments: argparse.Namespace) -> None:
    description = convert_images(
        arguments.images,
        arguments.masks,
        folders_of(arguments).raw,
        arguments.dataset,
        arguments.name,
        arguments.labels,
        arguments.group_pattern,
        arguments.overwrite,
        arguments.workers,
    )
    report(description, arguments)
