"""DICOM series: a folder with a file for each slice, as one volume.

Headers are read with pydicom, pixels through SimpleITK, whose GDCM knows the usual compressions and applies each
slice's rescale (Hounsfield units for CT). What is no straight stack of evenly spaced slices is refused.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.volume import Geometry, Volume
from autosam_net.errors import ImageFileError
from autosam_net.imageio.reader import (
    FOLDER_READERS,
    READERS,
    SPACING_TOLERANCE,
    FolderReader,
    damaged,
    without_warnings,
)

if TYPE_CHECKING:
    from pydicom import Dataset

log = logging.getLogger(__name__)

ENDINGS = (".dcm", ".dicom", ".ima")  # many files have none
PREAMBLE = 128  # bytes before the letters DICM
COSINE_TOLERANCE = 1e-3  # headers hold direction cosines as rounded text
SAME_PLACE = 0.01  # mm
MISSING = 1.5  # a gap of more usual gaps than this lacks a slice
UNEVEN = 0.1  # of the usual gap
KEYS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "ImagePositionPatient",
    "ImageOrientationPatient",
)
BROKEN_HEADER = (
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    NotImplementedError,
    OverflowError,
    struct.error,
)
CONVERT = "Convert it to NIfTI first, for example with dcm2niix."


@dataclass(frozen=True, eq=False)
class Slice:
    """A file of a series, and what its header says of its place.

    Attributes:
        header: all but the pixels.
        shape: rows and columns.
        position: of the first pixel's centre, mm, `(x, y, z)` in the patient's system (left, posterior, superior).
        axes: unit vectors along a row and along a column, `(2, 3)`.
        spacing: mm between rows and between columns.
        thickness: mm from one slice to the next as the header has it; counts where there is one slice only.
    """

    file: Path
    header: Dataset
    shape: tuple[int, int]
    position: NDArray[np.float64]
    axes: NDArray[np.float64]
    spacing: tuple[float, float]
    thickness: float

    @property
    def normal(self) -> NDArray[np.float64]:
        """Return the unit vector at right angles to the slice."""
        return np.cross(self.axes[0], self.axes[1])

    def height_along(self, normal: NDArray[np.float64]) -> float:
        """Return how far along `normal` the slice lies, in mm."""
        return float(self.position @ normal)


def is_series(folder: Path) -> bool:
    """Return whether DICOM files lie directly in the folder."""
    return any(is_dicom(file) for file in sorted(folder.iterdir()))


def is_dicom(file: Path) -> bool:
    """Return whether a file is DICOM by its ending or its first bytes; the directory of a CD (DICOMDIR) is none."""
    name = file.name.lower()
    if name.startswith((".", "dicomdir")) or name.endswith(tuple(READERS)) or not file.is_file():
        return False
    if name.endswith(ENDINGS):
        return True
    with file.open("rb") as content:
        return content.read(PREAMBLE + 4)[PREAMBLE:] == b"DICM"


def read(folder: Path) -> Volume:
    """Return the series in a folder, rescaled, float32, slices sorted along their normal.

    Raises:
        ImageFileError: as `read_slices`, or a slice's pixels cannot be read.
    """
    slices = read_slices(folder)
    array = np.concatenate([_read_pixels(entry.file) for entry in slices])  # (Z, Y, X)
    return Volume(array[None], _geometry(slices))


def count(folder: Path) -> int:
    """Return the voxels of a series whose slices are all as large as the first; no other header is read."""
    files = [file for file in sorted(folder.iterdir()) if is_dicom(file)]
    headers = (header for header in map(read_header, files) if is_image(header))
    return next((len(files) * int(header.Rows) * int(header.Columns) for header in headers), 0)


def read_slices(folder: Path) -> list[Slice]:
    """Return the slices of the one series in a folder, sorted along their normal.

    Reports, segmentations and other objects that are no images are left aside.

    Raises:
        ImageFileError: there are no slices, or slices of several series; they differ in size, orientation or pixel
            spacing; one is missing, lies where another lies or sideways of the stack (gantry tilt); or a header is
            damaged or states no place in space.
    """
    headers = [read_header(file) for file in sorted(folder.iterdir()) if is_dicom(file)]
    images = [header for header in headers if is_image(header)]
    if not images:
        found = ", ".join(sorted({kind_of(header) for header in headers})) or "nothing"
        raise ImageFileError(f"{folder}: no DICOM slices, found {found}. Give the folder of an image series.")
    _leave_aside([header for header in headers if not is_image(header)], images, folder)
    _refuse_several_series(images, folder)
    slices = [_slice(header) for header in images]
    _refuse_different(slices, folder)
    stack = sorted(slices, key=lambda entry: entry.height_along(slices[0].normal))
    _refuse_uneven(stack, folder)
    _refuse_tilt(stack, folder)
    return stack


def read_header(file: Path) -> Dataset:
    """Return a DICOM file without its pixels.

    Raises:
        ImageFileError: the file is no DICOM, or damaged.
    """
    import pydicom
    from pydicom.errors import BytesLengthException, InvalidDicomError

    logging.getLogger("pydicom").setLevel(logging.ERROR)  # remarks on values of a wrong form; errors still come
    try:
        with without_warnings():
            header = pydicom.dcmread(file, stop_before_pixels=True)
            for values, keys in ((header, KEYS), (header.file_meta, ("MediaStorageSOPClassUID",))):
                for key in keys:
                    values.get(key)  # converts its text, which is where a damaged one fails
    except InvalidDicomError as error:
        raise damaged(file, "no DICOM header") from error
    except (BytesLengthException, *BROKEN_HEADER) as error:
        raise damaged(file, error) from error
    required = ("SeriesInstanceUID", "Rows", "Columns") if is_image(header) else ("SOPClassUID",)
    if missing := [key for key in required if header.get(key) is None]:
        raise damaged(file, f"the header has no {', '.join(missing)}")
    return header


def is_image(header: Dataset) -> bool:
    """Return whether a DICOM object is an image, not a report, a segmentation or the like."""
    return "Image Storage" in kind_of(header)


def kind_of(header: Dataset) -> str:
    """Return what kind of object it is, in words, such as `CT Image Storage`."""
    uid = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    return str(getattr(uid, "name", "an object of unknown kind"))


def _leave_aside(others: Sequence[Dataset], images: Sequence[Dataset], folder: Path) -> None:
    series = {str(header.SeriesInstanceUID) for header in images}
    for header in others:
        if str(header.get("SeriesInstanceUID")) in series:
            raise damaged(Path(header.filename), f"a file of the series, but no image: {kind_of(header)}")
    if others:
        names = ", ".join(f"{Path(header.filename).name} ({kind_of(header)})" for header in others)
        log.info("%s: no images, left aside: %s", folder, names)


def _refuse_several_series(images: Sequence[Dataset], folder: Path) -> None:
    series: dict[str, list[Dataset]] = {}
    for header in images:
        series.setdefault(str(header.get("SeriesInstanceUID")), []).append(header)
    if len(series) > 1:
        listed = "; ".join(_describe(members) for members in series.values())
        raise ImageFileError(
            f"{folder}: holds {len(series)} series, expected one: {listed}. Put each into a folder of its own."
        )


def _describe(members: Sequence[Dataset]) -> str:
    first = members[0]
    text = f"number {first.get('SeriesNumber')} {first.get('SeriesDescription', '')} {first.get('Modality')}"
    return f"{' '.join(text.split())} with {len(members)} files, such as {Path(first.filename).name}"


def _slice(header: Dataset) -> Slice:
    file = Path(header.filename)
    try:
        _refuse_other_kinds(file, header)
        return _placed(file, header)
    except BROKEN_HEADER as error:
        raise damaged(file, error) from error


def _refuse_other_kinds(file: Path, header: Dataset) -> None:
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise ImageFileError(f"{file}: holds {header.NumberOfFrames} frames, expected a file for each slice. {CONVERT}")
    if int(header.get("SamplesPerPixel") or 1) > 1:
        raise ImageFileError(f"{file}: a colour image, expected grey values. Save such images as .png.")
    keys = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    if missing := [key for key in keys if not header.get(key)]:
        raise ImageFileError(
            f"{file}: states no {', '.join(missing)}, expected a slice with a place in the patient (CT, MR, PET). "
            "Save plain images as .png."
        )


def _placed(file: Path, header: Dataset) -> Slice:
    height, width = (float(step) for step in header.PixelSpacing)
    axes = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
    position = np.array(header.ImagePositionPatient, float).reshape(3)
    straight = np.allclose(axes @ axes.T, np.eye(2), atol=COSINE_TOLERANCE)
    if not (straight and height > 0 and width > 0 and np.isfinite([height, width, *position]).all()):
        raise ImageFileError(
            f"{file}: PixelSpacing {header.PixelSpacing}, ImageOrientationPatient {header.ImageOrientationPatient} and "
            f"ImagePositionPatient {header.ImagePositionPatient} describe no grid with right angles. Export the series "
            "again."
        )
    return Slice(
        file=file,
        header=header,
        shape=(int(header.Rows), int(header.Columns)),
        position=position,
        axes=axes,
        spacing=(height, width),
        thickness=float(header.get("SpacingBetweenSlices") or header.get("SliceThickness") or 1.0),
    )


def _refuse_different(slices: Sequence[Slice], folder: Path) -> None:
    first = slices[0]
    for entry in slices[1:]:
        agreement = {
            "size": entry.shape == first.shape,
            "pixel spacing": np.allclose(entry.spacing, first.spacing, rtol=SPACING_TOLERANCE),
            "orientation": np.allclose(entry.axes, first.axes, atol=COSINE_TOLERANCE),
        }
        if different := [what for what, same in agreement.items() if not same]:
            raise ImageFileError(
                f"{folder}: {entry.file.name} and {first.file.name} differ in {' and '.join(different)}, expected one "
                "grid. Take scouts and other planes out of the folder."
            )


def _refuse_uneven(slices: Sequence[Slice], folder: Path) -> None:
    gaps = np.diff([entry.height_along(slices[0].normal) for entry in slices])
    if len(gaps) == 0:
        return
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])  # the lower median: a few long gaps do not count
    for (lower, upper), gap in zip(pairwise(slices), gaps, strict=True):
        names = f"{lower.file.name} and {upper.file.name}"
        if gap < SAME_PLACE:
            raise ImageFileError(
                f"{folder}: {names} lie at the same place, expected one slice a place. Put each time frame, echo or "
                "reconstruction into a folder of its own, and remove files that are there twice."
            )
        if gap > MISSING * usual:
            raise ImageFileError(
                f"{folder}: {round(gap / usual) - 1} slice(s) missing between {names}, {gap:g} mm apart where others "
                f"are {usual:g} mm. Copy or export the series again."
            )
    if np.ptp(gaps) > UNEVEN * usual:
        raise ImageFileError(
            f"{folder}: slices lie {gaps.min():g} to {gaps.max():g} mm apart, expected one distance. {CONVERT}"
        )


def _refuse_tilt(slices: Sequence[Slice], folder: Path) -> None:
    """Refuse a stack whose slices shift sideways by more than half a pixel, which a rectangular grid cannot hold."""
    first = slices[0]
    steps = np.array([entry.position - first.position for entry in slices])
    sideways = np.linalg.norm(steps @ first.axes.T, axis=1)
    worst = int(sideways.argmax())
    if sideways[worst] > min(first.spacing) / 2:
        angle = np.degrees(np.arctan2(sideways[worst], steps[worst] @ first.normal))
        raise ImageFileError(
            f"{folder}: {slices[worst].file.name} lies {sideways[worst]:.1f} mm sideways of {first.file.name}, "
            f"expected a straight stack (a gantry tilt of {angle:.1f} degrees?). {CONVERT}"
        )


def _geometry(slices: Sequence[Slice]) -> Geometry:
    first, last = slices[0], slices[-1]
    height = last.height_along(first.normal) - first.height_along(first.normal)
    step = height / (len(slices) - 1) if len(slices) > 1 else first.thickness
    return Geometry(
        spacing=(step, *first.spacing),
        origin=tuple(first.position.tolist()),
        direction=tuple(np.column_stack([*first.axes, first.normal]).ravel().tolist()),
    )


def _read_pixels(file: Path) -> NDArray[np.float32]:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(file), sitk.sitkFloat32, "GDCMImageIO"))  # (1, Y, X)
    except RuntimeError as error:
        raise damaged(file, str(error).strip().splitlines()[-1]) from error


FOLDER_READERS.register("DICOM series")(FolderReader(is_series, read, count))
