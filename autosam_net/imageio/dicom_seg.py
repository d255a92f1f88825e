"""DICOM-SEG: label maps as DICOM objects that refer to the series they were drawn on, written and read by highdicom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from math import cos, sin
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autosam_net.errors import ImageFileError
from autosam_net.files import atomic_file
from autosam_net.imageio.dicom import BROKEN_HEADER, Slice, kind_of, read_slices
from autosam_net.imageio.reader import damaged, without_warnings
from autosam_net.memory import MIB

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom import Dataset

NAME = "autosam_net"
PRIVATE_CODES = "99AUTOSAM"  # DICOM reserves what begins with 99 for codes of one's own
SERIES_NUMBER = 9000  # far from those of scanners, so that viewers list it last
GOLDEN_ANGLE = 2.4  # radians; hues that far apart stay apart, however many there are
LABEL_MAP_BYTES = 2  # of a voxel: the label map in another number type
OVERLAP_BYTES = 9  # of a voxel, while highdicom looks whether regions overlap
FRAME_COPIES = 4  # of all planes of bits: one by one, put together, and on their way into the file
LONGEST_TEXT = 64  # characters of a label's name that DICOM has room for
MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)


def write_segmentation(
    path: Path, labels: NDArray[np.integer], targets: Mapping[str, Sequence[int]], series: Path
) -> None:
    """Write a label map `(Z, Y, X)` on the grid of a DICOM series as a binary DICOM-SEG.

    Each class is a segment whose number is its value. Regions are segments in the order of `targets`, and may overlap.

    Args:
        targets: name -> values of each class or region.
        series: folder of the series that was segmented.

    Raises:
        ImageFileError: the series cannot be read, or its headers lack what a DICOM-SEG must repeat.
    """
    import highdicom

    sources = [_with_empty_keys(entry.header) for entry in read_slices(series)]
    if _are_classes(targets):
        targets = dict(sorted(targets.items(), key=lambda entry: entry[1][0]))
        pixels = labels.astype(np.min_scalar_type(len(targets)), copy=False)
    else:
        pixels = np.empty((*labels.shape, len(targets)), np.uint8)
        for index, values in enumerate(targets.values()):
            pixels[..., index] = np.isin(labels, values)
    try:
        with without_warnings():
            segmentation = highdicom.seg.Segmentation(
                source_images=sources,
                pixel_array=pixels,
                segmentation_type="BINARY",
                segment_descriptions=[_describe(number, name) for number, name in enumerate(targets, start=1)],
                series_instance_uid=highdicom.UID(),
                series_number=SERIES_NUMBER,
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer=NAME,
                manufacturer_model_name=NAME,
                software_versions=version(NAME),
                device_serial_number="none",
                series_description=f"Segmentation by {NAME}",
                content_description="predicted, not reviewed",
                omit_empty_frames=bool(pixels.any()),
                specific_character_set="ISO_IR 192",  # UTF-8
            )
    except (AttributeError, *BROKEN_HEADER) as error:
        raise ImageFileError(
            f"{series}: no DICOM-SEG can refer to these slices ({error}). Export them again."
        ) from error
    with atomic_file(path) as temporary:
        segmentation.save_as(temporary)


def segmentation_mib(labels: NDArray[np.integer], targets: Mapping[str, Sequence[int]]) -> float:
    """Return what `write_segmentation` takes at its peak beside the label map `(Z, Y, X)`.

    Of each class and slice that has it one plane of bits is stored; regions, which may overlap, are stacked before.
    """
    present = [set(np.unique(plane).tolist()) for plane in labels]
    frames = sum(not values.isdisjoint(wanted) for values in present for wanted in targets.values())
    stacked = 0 if _are_classes(targets) else len(targets) + OVERLAP_BYTES
    bits = frames * labels[0].size / 8
    return (labels.size * (LABEL_MAP_BYTES + stacked) + FRAME_COPIES * bits) / MIB


def _are_classes(targets: Mapping[str, Sequence[int]]) -> bool:
    """Return whether no two targets overlap, each having a value of its own."""
    return all(len(values) == 1 for values in targets.values())


def is_segmentation(header: Dataset) -> bool:
    """Return whether a DICOM object is a DICOM-SEG of voxels."""
    return kind_of(header) in ("Segmentation Storage", "Label Map Segmentation Storage")


def read_segments(file: Path, slices: Sequence[Slice]) -> dict[str, NDArray[np.bool_]]:
    """Return name -> mask `(Z, Y, X)` on the grid of the series for each segment of a DICOM-SEG.

    Raises:
        ImageFileError: the file is no DICOM-SEG, or damaged; two segments have one name; or it lies on another grid.
    """
    segmentation = _open(file)
    names = [segmentation.get_segment_description(number).segment_label for number in segmentation.segment_numbers]
    if len(set(names)) < len(names):
        raise ImageFileError(f"{file}: two segments have one name ({', '.join(names)}). Rename one.")
    if (segmentation.Rows, segmentation.Columns) != slices[0].shape:
        raise _not_on_the_grid(file, slices, f"{segmentation.Rows} x {segmentation.Columns} pixels")
    instances = [str(entry.header.SOPInstanceUID) for entry in slices]
    elsewhere = {str(instance) for *_, instance in segmentation.get_source_image_uids()} - set(instances)
    if elsewhere:  # what was drawn there would be lost
        raise _not_on_the_grid(file, slices, f"it refers to {len(elsewhere)} other images")
    try:
        with without_warnings():
            pixels = segmentation.get_pixels_by_source_instance(
                instances,
                ignore_spatial_locations=True,  # few programs say that they kept them; the size was compared above
                assert_missing_frames_are_empty=True,
            )
    except (RuntimeError, ValueError, KeyError) as error:
        raise _not_on_the_grid(file, slices, str(error)) from error
    return {name: pixels[..., index] > 0.5 for index, name in enumerate(names)}  # a fractional one has 0 to 1


def _open(file: Path) -> Segmentation:
    import highdicom
    from pydicom.errors import InvalidDicomError

    try:
        with without_warnings():
            return highdicom.seg.segread(file)
    except (InvalidDicomError, AttributeError, *BROKEN_HEADER) as error:
        raise damaged(file, error) from error


def _not_on_the_grid(file: Path, slices: Sequence[Slice], found: str) -> ImageFileError:
    height, width = slices[0].shape
    return ImageFileError(
        f"{file}: does not lie on the {len(slices)} slices of {height} x {width} pixels in {slices[0].file.parent} "
        f"({' '.join(found.split())}). Export it again, on the grid of its images."
    )


def _with_empty_keys(header: Dataset) -> Dataset:
    """Return a header with what removing names from data often deletes, where DICOM asks for an empty value."""
    for key in MAY_BE_EMPTY:
        if key not in header:
            setattr(header, key, None)
    return header


def _describe(number: int, name: str) -> SegmentDescription:
    import highdicom
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=NAME, version=version(NAME), family=codes.DCM.ArtificialIntelligence
    )
    hue = number * GOLDEN_ANGLE
    label = name.replace("\\", "/")[:LONGEST_TEXT]  # a backslash separates values in DICOM
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.Tissue,  # as 3D Slicer does where nothing more is known
        segmented_property_type=highdicom.sr.CodedConcept(f"label-{number}", PRIVATE_CODES, label),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        display_color=highdicom.color.CIELabColor(60.0, 60.0 * cos(hue), 60.0 * sin(hue)),
    )
