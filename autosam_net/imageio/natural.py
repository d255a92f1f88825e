"""Photographs and 2D images (.png .jpg .bmp) through Pillow. These formats state no spacing in mm."""

from __future__ import annotations

import io
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.volume import Geometry, Volume
from autosam_net.errors import ImageFileError
from autosam_net.imageio.reader import READERS, Reader, damaged, without_warnings

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)

FLAT = Geometry((1.0, 1.0, 1.0), origin=(0.0, 0.0), direction=(1.0, 0.0, 0.0, 1.0), dimensions=2, calibrated=False)


def read(path: Path) -> Volume:
    """Return grey values (C = 1) or colours (C = 3) in the file's depth; a palette becomes colours, alpha is dropped.

    Raises:
        ImageFileError: the file is truncated, damaged or none of its format.
    """
    if _is_deep_colour(path):
        return Volume(_read_deep_colour(path), FLAT)
    return Volume(read_colours(path), FLAT)


def read_label(path: Path) -> Volume:
    """Return a label map: grey values, the indices of a palette, or colours `(3, 1, Y, X)`."""
    if _is_deep_colour(path):
        return read(path)
    return Volume(read_indices(path), FLAT)


def read_colours(path: Path) -> NDArray[np.generic]:
    """Return the pages of a file `(C, Z, Y, X)`, with what `read` says of colours; Z is 1 but for .tif.

    Raises:
        ImageFileError: as `read`, or its pages differ in shape.
    """
    return stack_pages(path, [_image_channels(page, path) for page in _pages(path)])


def read_indices(path: Path) -> NDArray[np.generic]:
    """Return the pages of a file as label maps `(C, Z, Y, X)`; otherwise as `read_colours`."""
    pages = [page if page.mode in ("P", "1") else page.convert(_plain_mode(page.mode)) for page in _pages(path)]
    return stack_pages(path, [_channels_first(np.asarray(page)) for page in pages])


def write(path: Path, labels: NDArray[np.integer], geometry: Geometry) -> None:
    """Write a label map `(1, Y, X)` as grey values.

    Raises:
        ImageFileError: the label map has several slices, which only .tif can hold.
    """
    from PIL import Image

    if len(labels) != 1:
        raise ImageFileError(f"{path.name}: cannot hold a label map of {len(labels)} slices. Choose .nii.gz.")
    content = io.BytesIO()
    Image.fromarray(labels[0]).save(content, Image.registered_extensions()[path.suffix.lower()])
    path.write_bytes(content.getvalue())  # Pillow itself does not notice a .bmp that is cut short by a full disk


def write_picture(path: Path, array: NDArray[np.generic]) -> None:
    """Write an image `(C, 1, Y, X)` of one or three channels, uint8 or uint16, without loss (.png).

    Raises:
        ImageFileError: the array has another number type or another number of channels.
    """
    if array.dtype not in (np.uint8, np.uint16) or len(array) not in (1, 3):
        raise ImageFileError(
            f"{path.name}: an image of {len(array)} channels of {array.dtype} cannot become a .png. "
            "Save it with 8 or 16 bits, grey or RGB."
        )
    import SimpleITK as sitk

    from autosam_net.imageio.simpleitk import save  # not before: readers are listed in the order of their import

    colour = len(array) == 3
    pixels = np.moveaxis(array[:, 0], 0, -1) if colour else array[0, 0]
    save(sitk.GetImageFromArray(np.ascontiguousarray(pixels), isVector=colour), path)


def count(path: Path) -> int:
    """Return the numbers in a file, all channels and pages counted; nothing but its header is read."""
    from PIL import Image

    try:
        with without_warnings(), Image.open(path) as image:
            return math.prod(image.size) * len(image.getbands()) * getattr(image, "n_frames", 1)
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError, TypeError) as error:
        raise damaged(path, error) from error


def _pages(path: Path) -> list[Image.Image]:
    from PIL import Image, ImageSequence, UnidentifiedImageError

    try:
        with without_warnings(), Image.open(path) as image:
            if path.name.lower().endswith((".tif", ".tiff")):
                return [page.copy() for page in ImageSequence.Iterator(image)]
            image.load()
            copy = image.copy()
        with without_warnings(), Image.open(path) as image:
            image.verify()  # the checksums of a PNG's pixels, which reading passes over
        return [copy]
    except Image.DecompressionBombError as error:
        raise ImageFileError(f"{path}: too large to be read at once ({error}). Cut it into tiles.") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError, EOFError) as error:
        raise damaged(path, str(error).replace(str(path), path.name)) from error


def _image_channels(page: Image.Image, path: Path) -> NDArray[np.generic]:
    if page.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        log.info("%s: the alpha channel (transparency) is left out", path.name)
    mode = "RGB" if page.mode in ("P", "PA") else _plain_mode(page.mode)
    if page.mode == "P" and "transparency" in page.info:
        page = page.convert("RGBA")  # Pillow warns on the direct way
    return _channels_first(np.asarray(page.convert(mode)))


def _plain_mode(mode: str) -> str:
    """Return the mode with the same content but without alpha, and without colours that are not red, green, blue."""
    modes = {"1": "L", "LA": "L", "La": "L", "PA": "P", "RGBA": "RGB", "RGBa": "RGB", "RGBX": "RGB"}
    return modes.get(mode, "RGB" if mode in ("CMYK", "YCbCr", "LAB", "HSV") else mode)


def _channels_first(array: NDArray[np.generic]) -> NDArray[np.generic]:
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.moveaxis(native, -1, 0) if native.ndim == 3 else native[None]  # (C, Y, X)


def stack_pages(path: Path, pages: list[NDArray[np.generic]]) -> NDArray[np.generic]:
    """Return pages `(C, Y, X)` as one array `(C, Z, Y, X)`.

    Raises:
        ImageFileError: they differ in shape.
    """
    if len({page.shape for page in pages}) > 1:
        raise ImageFileError(f"{path}: its {len(pages)} pages differ in shape. Save one page only.")
    return np.stack(pages, axis=1)  # (C, Z, Y, X)


def _is_deep_colour(path: Path) -> bool:
    """Return whether the file is a .png of 16 bits a colour, which Pillow would cut down to 8."""
    if not path.name.lower().endswith(".png"):
        return False
    with path.open("rb") as file:
        start = file.read(26)
    return len(start) == 26 and start[24] == 16 and start[25] in (2, 6)


def _read_deep_colour(path: Path) -> NDArray[np.generic]:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))  # (Y, X, C)
    except RuntimeError as error:
        raise damaged(path, str(error).strip().splitlines()[-1]) from error
    if array.shape[-1] == 4:
        log.info("%s: the alpha channel (transparency) is left out", path.name)
    return np.moveaxis(array, -1, 0)[:3, None]


for _ending in (".png", ".bmp"):
    READERS.register(_ending)(Reader(read, write, read_label, count=count))
for _ending in (".jpg", ".jpeg"):
    READERS.register(_ending)(Reader(read, None, read_label, count=count))
