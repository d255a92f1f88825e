"""Volumes through SimpleITK: NIfTI, MetaImage and NRRD.

ITK reads a NIfTI or compressed MetaImage file that is cut off or damaged without an error and fills what is missing
with anything; such files are therefore checked before they are read.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from math import inf, prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.volume import Geometry, Volume
from autosam_net.errors import ImageFileError
from autosam_net.imageio.reader import READERS, Reader, damaged

if TYPE_CHECKING:
    import SimpleITK as sitk

NIFTI_HEADER = 352  # bytes up to the first voxel
NIFTI_FLOATS = {16: "f4", 64: "f8"}  # codes of the datatypes that can hold NaN
BLOCK = 1 << 20


def load_image(path: Path) -> sitk.Image:
    """Return the file as SimpleITK reads it, after a check that it is whole.

    Raises:
        ImageFileError: the file is truncated, damaged or none of its format.
    """
    import SimpleITK as sitk

    check_integrity(path)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # header remarks such as "unexpected scales in sform"
    try:
        return sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("sitk::ERROR: ")
        if "orthonormal" in reason:
            raise ImageFileError(
                f"{path}: the axes in the header are not at right angles ({reason.strip()}). Resample the image to a "
                "rectangular grid, or correct the header's direction."
            ) from error
        raise damaged(path, reason) from error


def read(path: Path) -> Volume:
    """Return image and geometry; several components a voxel, or a fourth dimension, become channels.

    Raises:
        ImageFileError: as `load_image`; also more than four dimensions, or four with several components.
    """
    import SimpleITK as sitk

    image = load_image(path)
    components = image.GetNumberOfComponentsPerPixel() > 1
    if image.GetDimension() + components > 4:
        size = " x ".join(map(str, image.GetSize()))
        raise ImageFileError(
            f"{path}: has {image.GetDimension()} dimensions ({size}){' of several components' * components}, expected "
            "2 or 3, or 4 with the channels as the last. Write a file a channel (CASE_0000, CASE_0001, ...)."
        )
    array = sitk.GetArrayFromImage(image)
    if components:
        array = np.moveaxis(array, -1, 0)
    elif image.GetDimension() < 4:
        array = array[None]
    if image.GetDimension() == 2:
        array = array[:, None]
    return Volume(array, _geometry(image))  # (C, Z, Y, X)


def count(path: Path) -> int:
    """Return the numbers in a file, all components and dimensions counted; nothing but its header is read."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise damaged(path, error) from error
    return prod(reader.GetSize()) * reader.GetNumberOfComponents()


def to_image(array: NDArray[np.generic], geometry: Geometry) -> sitk.Image:
    """Return an array `(Z, Y, X)` of one channel with its place in space, in the dimensions of the geometry."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array[0] if geometry.dimensions == 2 else array)
    image.SetSpacing(geometry.spacing[::-1][: geometry.dimensions])
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    return image


def write(path: Path, array: NDArray[np.generic], geometry: Geometry) -> None:
    """Write a label map or one channel of an image `(Z, Y, X)`, compressed, in the dimensions of the geometry."""
    save(to_image(array, geometry), path)


def save(image: sitk.Image, path: Path) -> None:
    """Write an image in the format of the ending, compressed where it can be; what is there afterwards is whole.

    Raises:
        OSError: the system refused it; ITK tells no reason, and nothing at all of a NIfTI file that was cut short.
        ImageFileError: ITK refused it.
    """
    import SimpleITK as sitk

    try:
        sitk.WriteImage(image, str(path), useCompression=not path.name.endswith(".nii"))
        check_integrity(path)
    except (RuntimeError, ImageFileError) as error:
        with path.open("ab") as file:
            file.write(bytes(BLOCK))  # one more block, which the system refuses with its reason
        reason = str(error).strip().splitlines()[-1].removeprefix(f"{path}: ")
        cure = "Free some space on the disk, or choose another folder."
        raise ImageFileError(f"{path}: cannot be written ({reason}). {cure}") from error


def check_integrity(path: Path) -> None:
    """Refuse a file that is shorter than its header says or whose checksum is wrong.

    Raises:
        ImageFileError: says so.
    """
    try:
        if path.name.lower().endswith((".nii", ".nii.gz")):
            _check_nifti(path)
        elif path.name.lower().endswith(".mha"):
            _check_compressed_metaimage(path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(path, error) from error


def _check_nifti(path: Path) -> None:
    """Read a NIfTI file through, since ITK would take a short one as it is and turn NaN and infinities into 0."""
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        header = file.read(NIFTI_HEADER)
        expected = _nifti_bytes(header)
        found, not_finite = len(header), 0
        number = _nifti_float(header)
        for block in iter(lambda: file.read(BLOCK), b""):
            found += len(block)
            if number is not None:
                not_finite += int((~np.isfinite(np.frombuffer(block, number, len(block) // number.itemsize))).sum())
    if found < expected:
        raise EOFError(f"the header announces {expected} bytes, found {found}")
    if not_finite:
        raise ImageFileError(
            f"{path}: has NaN or infinity in {not_finite} voxel(s), expected finite values. "
            "Replace them by the background's value."
        )


def _nifti_float(header: bytes) -> np.dtype[np.floating] | None:
    """Return the number type of voxels that can be NaN and that follow the header at once; None for others."""
    order = "<" if struct.unpack_from("<i", header)[0] == 348 else ">"
    kind = NIFTI_FLOATS.get(struct.unpack_from(order + "h", header, 70)[0])
    offset = struct.unpack_from(order + "f", header, 108)[0]
    return np.dtype(order + kind) if kind is not None and offset == NIFTI_HEADER else None


def _nifti_bytes(header: bytes) -> int:
    """Return how long the header says that the whole file is; 0 for a header that is not NIfTI-1's."""
    if len(header) < NIFTI_HEADER:
        raise EOFError(f"only {len(header)} bytes, shorter than a header")
    order = "<" if struct.unpack_from("<i", header)[0] == 348 else ">"
    if struct.unpack_from(order + "i", header)[0] != 348:
        return 0
    dimensions = struct.unpack_from(order + "8h", header, 40)
    bits = struct.unpack_from(order + "h", header, 72)[0]
    offset = struct.unpack_from(order + "f", header, 108)[0]
    if not 0 <= offset < inf:
        raise EOFError(f"by the header its voxels begin at byte {offset:g}")
    return int(offset) + prod(dimensions[1 : dimensions[0] + 1]) * bits // 8


def _check_compressed_metaimage(path: Path) -> None:
    blocks = _blocks(path)
    start = next(blocks, b"")
    header, _, rest = start.partition(b"ElementDataFile = LOCAL")
    if b"CompressedData = True" not in header:
        return  # ITK itself checks the length of plain data
    decompressor = zlib.decompressobj(wbits=47)  # zlib's or gzip's header
    decompressor.decompress(rest.split(b"\n", 1)[-1])
    for block in blocks:
        decompressor.decompress(block)
    if not decompressor.eof:
        raise EOFError("the compressed data ends too early")


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from iter(lambda: file.read(BLOCK), b"")


def _geometry(image: sitk.Image) -> Geometry:
    axes = image.GetDimension()
    dimensions = min(axes, 3)  # a fourth axis, of channels, has no place in space
    spacing = image.GetSpacing()[:dimensions][::-1]
    direction = np.reshape(image.GetDirection(), (axes, axes))[:dimensions, :dimensions]
    return Geometry(
        spacing=spacing if dimensions == 3 else (1.0, *spacing),
        origin=image.GetOrigin()[:dimensions],
        direction=tuple(direction.ravel().tolist()),
        dimensions=dimensions,
    )


for _ending in (".nii.gz", ".nii", ".mha", ".nrrd"):
    READERS.register(_ending)(Reader(read, write, holds_fractions=True, count=count))
READERS.register(".mhd")(Reader(read, count=count))  # two files, which could not appear whole at once
