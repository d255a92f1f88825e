"""One way to read and write any image: the reader is chosen by the file's ending, or by what lies in a folder.

A third party adds a file format with `READERS.register(".npy")(Reader(read_npy, write_npy))`, and an image that is a
folder with `FOLDER_READERS.register("my format")(FolderReader(recognizes, read))`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.volume import Geometry, Volume
from autosam_net.errors import AutosamError, DatasetError, ImageFileError
from autosam_net.files import atomic_file
from autosam_net.registry import Registry

SPACING_TOLERANCE = 1e-3  # relative; headers in float32 and rounded text differ by less


@dataclass(frozen=True)
class Reader:
    """How files of one ending are read and written.

    Attributes:
        read: file -> `(C, Z, Y, X)` in the file's own number type.
        write: puts a label map `(Z, Y, X)` with its geometry into a file; None where the format cannot hold labels.
        read_label: reads a label map where that differs from `read` (the indices of a palette, not its colours).
        write_sidecar: puts what the format itself cannot hold of the geometry into a file beside it.
        holds_fractions: whether `write` takes float32 as well.
        count: returns the numbers that `read` gives, from the header alone.
    """

    read: Callable[[Path], Volume]
    write: Callable[[Path, NDArray[np.integer], Geometry], None] | None = None
    read_label: Callable[[Path], Volume] | None = None
    write_sidecar: Callable[[Path, Geometry], None] | None = None
    holds_fractions: bool = False
    count: Callable[[Path], int] | None = None


@dataclass(frozen=True)
class FolderReader:
    """How a folder whose files are one image together, such as a DICOM series, is known and read.

    Attributes:
        recognizes: folder -> whether it is such an image; asked of every folder in an input, so that it must be quick.
        read: folder -> `(C, Z, Y, X)`.
        count: folder -> the numbers that `read` gives, from headers alone.
    """

    recognizes: Callable[[Path], bool]
    read: Callable[[Path], Volume]
    count: Callable[[Path], int] | None = None


READERS: Registry[Reader] = Registry("file ending")
FOLDER_READERS: Registry[FolderReader] = Registry("image folder")


def is_image_folder(path: Path) -> bool:
    """Return whether a path is a folder whose files are one image together."""
    return _folder_reader(path) is not None


def image_stem(path: Path) -> str:
    """Return the name of an image without its file ending; a folder's name is whole.

    Raises:
        ImageFileError: no reader knows the ending.
    """
    return path.resolve().name if path.is_dir() else split_ending(path.name)[0]


def split_ending(name: str) -> tuple[str, str]:
    """Return stem and ending of a file's name: `case.nii.gz` is `case` and `.nii.gz`; upper case counts as lower.

    Raises:
        ImageFileError: no reader knows the ending.
    """
    fitting = [ending for ending in READERS if name.lower().endswith(ending)]
    if not fitting:
        known = ", ".join(READERS)
        raise ImageFileError(
            f"{name}: no reader for this file ending; known: {known}. Convert the file to one of them; of a DICOM "
            "series give the folder."
        )
    ending = max(fitting, key=len)
    return name[: -len(ending)], ending


def count_numbers(paths: Sequence[Path]) -> int:
    """Return about how many numbers images hold together, all voxels and channels counted, as their headers say.

    A header that cannot be read counts for nothing: reading the whole says what is wrong. Of a format whose reader
    cannot count, a file's bytes are taken.
    """
    return sum(map(_count_in, paths))


def _count_in(path: Path) -> int:
    try:
        reader = _folder_reader(path) or _reader(_existing(path))
        return path.stat().st_size if reader.count is None else reader.count(path)
    except (AutosamError, OSError):
        return 0


def read_image(path: Path | str) -> Volume:
    """Return the image in a file, or in a folder that is one image, as float32 `(C, Z, Y, X)`.

    Raises:
        ImageFileError: the file is missing, damaged or of an unknown format.
    """
    path = Path(path)
    folder_reader = _folder_reader(path)
    volume = folder_reader.read(path) if folder_reader else _reader(path).read(_existing(path))
    return Volume(volume.array.astype(np.float32, copy=False), volume.geometry)


def read_label(path: Path | str) -> Volume:
    """Return the label map in a file as whole numbers `(1, Z, Y, X)`.

    Raises:
        ImageFileError: as `read_image`; also values that are no whole numbers, or colours instead of values.
    """
    path = Path(path)
    reader = _reader(path)
    volume = (reader.read_label or reader.read)(_existing(path))
    return Volume(_whole_numbers(_single_channel(volume.array, path), path), volume.geometry)


def read_case(paths: Sequence[Path]) -> Volume:
    """Return all channels of a case as float32 `(C, Z, Y, X)`, in the order of the files; each may hold several.

    Raises:
        DatasetError: the files differ in shape or spacing.
        ImageFileError: as `read_image`.
    """
    volumes = [read_image(path) for path in paths]
    first = volumes[0]
    for path, volume in zip(paths[1:], volumes[1:], strict=True):
        if volume.shape != first.shape:
            raise DatasetError(_mismatch("shape", paths[0], first.shape, path, volume.shape))
        if not np.allclose(volume.geometry.spacing, first.geometry.spacing, rtol=SPACING_TOLERANCE):
            raise DatasetError(_mismatch("spacing", paths[0], first.geometry.spacing, path, volume.geometry.spacing))
    if len(volumes) == 1:
        return first
    return Volume(np.concatenate([volume.array for volume in volumes]), first.geometry)


def write_label(path: Path, labels: NDArray[np.integer], geometry: Geometry) -> None:
    """Write a label map `(Z, Y, X)` as uint8 or uint16 with the geometry given; a 2D geometry makes a 2D file.

    Raises:
        ImageFileError: the ending is unknown or cannot hold labels, or values lie outside 0..65535.
    """
    if labels.size and (labels.min() < 0 or labels.max() > np.iinfo(np.uint16).max):
        raise ImageFileError(f"{path}: label values must lie in 0..65535, found {labels.min()}..{labels.max()}")
    small = not labels.size or labels.max() <= np.iinfo(np.uint8).max
    _write(path, labels.astype(np.uint8 if small else np.uint16, copy=False), geometry)


def write_fractions(path: Path, fractions: NDArray[np.floating], geometry: Geometry) -> None:
    """Write a map `(Z, Y, X)` of numbers from 0 to 1 as float32; as grey values, 255 for 1, where a format has no more.

    Raises:
        ImageFileError: the ending is unknown or cannot hold such a map.
    """
    if _reader(path).holds_fractions:
        _write(path, fractions.astype(np.float32, copy=False), geometry)
    else:
        _write(path, np.rint(255 * fractions.astype(np.float32)).astype(np.uint8), geometry)


def _write(path: Path, array: NDArray[Any], geometry: Geometry) -> None:
    reader = _reader(path)
    if reader.write is None:
        writable = ", ".join(ending for ending in READERS if READERS.get(ending).write)
        raise ImageFileError(f"{path}: this format cannot hold a label map exactly. Choose one of {writable}.")
    with atomic_file(path) as temporary:
        try:
            reader.write(temporary, array, geometry)
        except ImageFileError as error:
            raise type(error)(str(error).replace(str(temporary), str(path))) from error
    if reader.write_sidecar:
        reader.write_sidecar(path, geometry)


def damaged(path: Path, reason: object) -> ImageFileError:
    """Return the error for a file whose content cannot be read; `reason` is what the library said."""
    text = " ".join(str(reason).split()) or type(reason).__name__
    return ImageFileError(
        f"{path}: cannot be read, the file is truncated or damaged ({text}). Copy or download it again."
    )


@contextmanager
def without_warnings() -> Iterator[None]:
    """Hide remarks on metadata (EXIF, tags) that no reader here uses; errors still come."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _folder_reader(path: Path) -> FolderReader | None:
    if not path.is_dir():
        return None
    readers = (FOLDER_READERS.get(name) for name in FOLDER_READERS)
    return next((reader for reader in readers if reader.recognizes(path)), None)


def _reader(path: Path) -> Reader:
    if path.is_dir():
        raise ImageFileError(f"{path}: a folder, but no {' or '.join(FOLDER_READERS)}. Give an image file.")
    return READERS.get(split_ending(path.name)[1])


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ImageFileError(f"{path}: no such file. Check the name, or copy the file there.")
    return path


def _single_channel(array: NDArray[np.generic], path: Path) -> NDArray[np.generic]:
    if any(not np.array_equal(channel, array[0]) for channel in array[1:]):
        raise ImageFileError(
            f"{path}: label file has {len(array)} channels that differ, expected one value a voxel. "
            "Turn colours into values (autosam_convert_images does), or write one channel."
        )
    return array[:1]


def _whole_numbers(array: NDArray[np.generic], path: Path) -> NDArray[np.integer]:
    if array.dtype == bool:
        return array.astype(np.uint8)
    if np.issubdtype(array.dtype, np.integer):
        return array  # type: ignore[return-value]
    rounded = np.rint(np.nan_to_num(array))
    different = rounded != array  # true for NaN as well
    if different.any():
        raise ImageFileError(
            f"{path}: label file has the value {array[different][0]:g}, expected whole numbers. "
            "Resample labels with nearest neighbour, or round them."
        )
    return rounded.astype(np.int32)


def _mismatch(kind: str, first: Path, expected: tuple[float, ...], path: Path, found: tuple[float, ...]) -> str:
    return (
        f"{path.name}: {kind} (z, y, x) is {_numbers(found)}, that of {first.name} is {_numbers(expected)}. "
        "All channels of a case must lie on one grid: resample one of them."
    )


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
