"""DICOM series made of nothing, for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SPACING = (3.0, 0.8, 0.7)  # mm, z y x
ORIGIN = (-10.5, 20.25, 30.0)  # mm, x y z


def noise(shape: tuple[int, int, int] = (5, 12, 10), seed: int = 0) -> NDArray[np.int16]:
    """Return stored values as a CT has them."""
    return np.random.default_rng(seed).integers(0, 3000, shape).astype(np.int16)


def write_series(
    folder: Path,
    stored: NDArray[np.int16],
    axes: tuple[float, ...] = AXIAL,
    change: Callable[[Dataset, int], None] = lambda header, index: None,
    patient: str = "P1",
    seed: str = "series",
) -> Path:
    """Write stored values `(Z, Y, X)` as CT slices, whose file names are in no order.

    Args:
        change: is given each slice and its number along the normal before it is written; may delete the position in
            order to leave the file out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(axes[:3], axes[3:])
    for index, pixels in enumerate(stored):
        header = _slice(pixels, axes, patient, seed)
        header.InstanceNumber = index + 1
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = generate_uid(
            entropy_srcs=[seed, str(index)]
        )
        header.ImagePositionPatient = [round(float(x), 6) for x in ORIGIN + index * SPACING[0] * normal]
        change(header, index)
        header.save_as(folder / f"{(index * 7 + 3) % 97:02d}.dcm", enforce_file_format=True)
    return folder


def _slice(pixels: NDArray[np.int16], axes: tuple[float, ...], patient: str, seed: str) -> Dataset:
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = CTImageStorage
    header.PatientID, header.PatientName, header.PatientBirthDate, header.PatientSex = patient, "Doe^Jane", "", "O"
    header.StudyInstanceUID = generate_uid(entropy_srcs=[patient, "study"])
    header.SeriesInstanceUID = generate_uid(entropy_srcs=[seed, "series"])
    header.FrameOfReferenceUID = generate_uid(entropy_srcs=[seed, "frame"])
    header.StudyID, header.AccessionNumber, header.StudyDate, header.StudyTime = "1", "", "20200101", "120000"
    header.Modality, header.SeriesNumber, header.SeriesDescription = "CT", 4, f"CT {seed}"
    header.Rows, header.Columns = pixels.shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
    header.PixelSpacing, header.SliceThickness = list(SPACING[1:]), SPACING[0]
    header.ImageOrientationPatient = list(axes)
    header.RescaleSlope, header.RescaleIntercept = 1, -1024
    header.PixelData = pixels.astype("<i2").tobytes()
    return header
