"""TIFF files: 2D images, and stacks of pages as volumes.

A TIFF states no spacing in mm. It may have a sidecar, as nnU-Net's: `CASE.json` beside `CASE.tif` or `CASE_0000.tif`,
with `{"spacing": [z, y, x]}` in mm. Pillow reads what it can read exactly, with all its compressions; tifffile reads
the rest: signed, 32-bit and 64-bit numbers, deep colours, colours in separate planes, and the channels of microscopy
(ImageJ, OME).
"""

from __future__ import annotations

import json
import logging
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.volume import Geometry, Volume
from autosam_net.errors import ImageFileError
from autosam_net.imageio.natural import FLAT, read_colours, read_indices, stack_pages
from autosam_net.imageio.reader import READERS, Reader, damaged, split_ending, without_warnings
from autosam_net.jsonio import write_json

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

log = logging.getLogger(__name__)

EXACT_IN_PILLOW = {"bool", "uint8", "uint16", "int32", "float32"}  # of grey values; of colours uint8 only
ALPHA = (1, 2)  # values of the tag ExtraSamples
BROKEN = (ValueError, TypeError, KeyError, IndexError, OSError, struct.error, zlib.error)


def read(path: Path) -> Volume:
    """Return grey values, colours or more channels `(C, Z, Y, X)` in the file's depth; a palette becomes colours.

    Raises:
        ImageFileError: the file is truncated, damaged, none of its format, or compressed in a way that is not known.
    """
    return _read(path, read_colours)


def read_label(path: Path) -> Volume:
    """Return a label map: grey values, the indices of a palette, or colours `(3, Z, Y, X)`."""
    return _read(path, read_indices)


def count(path: Path) -> int:
    """Return the numbers in a file, all channels and pages counted; nothing but its tags is read."""
    import tifffile

    try:
        with without_warnings(), tifffile.TiffFile(path) as file:
            return sum(math.prod(series.shape) for series in file.series)
    except BROKEN as error:
        raise damaged(path, error) from error


def write(path: Path, labels: NDArray[np.integer], geometry: Geometry) -> None:
    """Write a label map `(Z, Y, X)` as the pages of a .tif."""
    from PIL import Image

    first, *others = [Image.fromarray(page) for page in labels]
    first.save(path, save_all=True, append_images=others, compression="tiff_adobe_deflate")


def write_sidecar(path: Path, geometry: Geometry) -> None:
    """Write the spacing beside a stack that has one."""
    if geometry.dimensions == 3 and geometry.calibrated:
        write_json(path.with_name(split_ending(path.name)[0] + ".json"), {"spacing": geometry.spacing})


def _read(path: Path, read_with_pillow: Callable[[Path], NDArray[np.generic]]) -> Volume:
    spacing = _stated_spacing(path)
    array = _read_exactly(path, spacing is not None)
    if array is None:
        array = read_with_pillow(path)
    if spacing is not None:
        return Volume(array, Geometry(spacing))
    return Volume(array, FLAT if array.shape[1] == 1 else Geometry((1.0, 1.0, 1.0), calibrated=False))


def _stated_spacing(path: Path) -> tuple[float, float, float] | None:
    """Return the spacing in the sidecar, if there is one."""
    stem = split_ending(path.name)[0]
    names = (f"{stem}.json", re.sub(r"_\d{4}$", "", stem) + ".json")
    sidecar = next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)
    if sidecar is None:
        return None
    try:
        depth, height, width = map(float, json.loads(sidecar.read_text(encoding="utf-8"))["spacing"])
    except (KeyError, TypeError, ValueError) as error:
        raise ImageFileError(f'{sidecar}: expected {{"spacing": [z, y, x]}} in mm. Correct the file.') from error
    return depth, height, width


@contextmanager
def _no_error_passed_over() -> Iterator[None]:
    """Raise what tifffile only logs, such as a page that lies beyond the end of the file."""

    def refuse(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            raise ValueError(record.getMessage())
        return True

    logger = logging.getLogger("tifffile")
    logger.addFilter(refuse)
    try:
        yield
    finally:
        logger.removeFilter(refuse)


def _read_exactly(path: Path, is_volume: bool) -> NDArray[np.generic] | None:
    """Return the pages `(C, Z, Y, X)` of a file that Pillow cannot read or would change; None for others.

    Args:
        is_volume: whether colours in separate planes are slices; tifffile saves a stack of 3 or 4 so.
    """
    import tifffile

    try:
        with without_warnings(), _no_error_passed_over(), tifffile.TiffFile(path) as file:
            if (hyperstack := _read_hyperstack(file, path)) is not None:
                return hyperstack
            pages = [page.aspage() for page in file.pages]
            if not pages or all(_is_exact_in_pillow(page) for page in pages):
                return None
            if is_volume and len(pages) == 1 and pages[0].planarconfig == tifffile.PLANARCONFIG.SEPARATE:
                return pages[0].asarray()[None]
            return stack_pages(path, [_channels(page, path) for page in pages])
    except BROKEN as error:
        if "imagecodecs" in str(error):
            raise ImageFileError(
                f"{path}: this compression cannot be read for {pages[0].dtype} ({error}). Save it with Deflate (zlib)."
            ) from error
        raise damaged(path, str(error).replace(str(path), path.name)) from error


def _read_hyperstack(file: TiffFile, path: Path) -> NDArray[np.generic] | None:
    """Return `(C, Z, Y, X)` of a file whose pages are channels of slices by its ImageJ or OME metadata; else None."""
    axes = file.series[0].axes if file.is_imagej or file.is_ome else ""
    if "T" in axes and "Z" in axes:
        raise ImageFileError(f"{path}: has the axes {axes}, time frames of volumes. Save each time frame as a file.")
    if "C" not in axes or "S" in axes:
        return None
    outer = [axis for axis, letter in enumerate(axes) if letter not in "CYX"]
    array = np.transpose(file.series[0].asarray(), [axes.index("C"), *outer, axes.index("Y"), axes.index("X")])
    return array.reshape(len(array), -1, *array.shape[-2:])


def _is_exact_in_pillow(page: TiffPage) -> bool:
    import tifffile

    if page.samplesperpixel > 1:
        return page.dtype == np.uint8 and page.planarconfig == tifffile.PLANARCONFIG.CONTIG
    return str(page.dtype) in EXACT_IN_PILLOW


def _channels(page: TiffPage, path: Path) -> NDArray[np.generic]:
    """Return a page `(C, Y, X)` without its alpha channel."""
    import tifffile

    array = page.asarray()
    if page.samplesperpixel == 1:
        return array[None]
    channels = array if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE else np.moveaxis(array, -1, 0)
    if alpha := sum(kind in ALPHA for kind in page.extrasamples):
        log.info("%s: the alpha channel (transparency) is left out", path.name)
    return channels[: len(channels) - alpha]


for _ending in (".tif", ".tiff"):
    READERS.register(_ending)(Reader(read, write, read_label, write_sidecar, count=count))
