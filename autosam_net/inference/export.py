"""Probabilities of slices to a label map on the raw grid, and to disk."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autosam_net.arrays import new_array
from autosam_net.data.case import CaseProperties
from autosam_net.data.dataset import CaseFiles
from autosam_net.data.labels import LabelSet
from autosam_net.errors import UsageError
from autosam_net.evaluation.postprocessing import keep_largest
from autosam_net.files import atomic_file
from autosam_net.imageio import read_label, write_label
from autosam_net.imageio.dicom import is_series
from autosam_net.imageio.dicom_seg import segmentation_mib, write_segmentation
from autosam_net.memory import ENCODING_MIB, LABEL_BYTES, MIB, demand_memory
from autosam_net.parallel import progress
from autosam_net.preprocessing.geometry import cropped_part, restore_slices


def label_map(
    slices: Iterable[NDArray[np.float32]],
    properties: CaseProperties,
    labels: LabelSet,
    largest_only: Sequence[Sequence[int]] = (),
) -> NDArray[np.integer]:
    """Return the label map `(Z, Y, X)` on the raw grid of the probabilities `(outputs, Y, X)` of its slices.

    Args:
        largest_only: groups of values of which only the largest connected component is kept.
    """
    decoded = (labels.decode(probabilities) for probabilities in slices)
    return keep_largest(restore_slices(decoded, properties, labels.dtype), largest_only)


def export_case(
    path: Path,
    slices: Iterable[NDArray[np.float32]],
    properties: CaseProperties,
    labels: LabelSet,
    probabilities_path: Path | None = None,
    largest_only: Sequence[Sequence[int]] = (),
) -> None:
    """Write the label map with the raw image's geometry, and the probabilities if a path is given for them.

    The probabilities are a float16 array `(outputs, Z, Y, X)` on the raw grid, written slice by slice. The label map
    comes last: where it lies, the case is done.

    Args:
        largest_only: groups of values of which only the largest connected component is kept, in the label map.
    """
    if probabilities_path is None:
        decoded = label_map(slices, properties, labels, largest_only)
    else:
        shape = (labels.outputs, *properties.raw_shape)
        with atomic_file(probabilities_path) as temporary:
            new_array(temporary, np.float16, shape)
            reopen = functools.partial(np.load, temporary, mmap_mode="r+", allow_pickle=False)
            decoded = label_map(fill_in(reopen, slices, properties, labels), properties, labels, largest_only)
    write_label(path, decoded, properties.geometry)


def fill_in(
    whole: Callable[[], NDArray[np.float16]],
    slices: Iterable[NDArray[np.float32]],
    properties: CaseProperties,
    labels: LabelSet,
) -> Iterator[NDArray[np.float32]]:
    """Yield the slices, and put each into its place in an array.

    Args:
        whole: returns the array, zeros `(outputs, Z, Y, X)` on the raw grid. It is asked for each slice anew: a map of
            a file that stayed open would come to hold the whole file in memory.
    """
    if not labels.has_regions:
        whole()[0] = 1.0  # outside the crop everything is background
    for position, probabilities in enumerate(slices):
        cropped_part(whole(), properties)[:, position] = probabilities
        yield probabilities


def refuse_without_series(cases: Sequence[CaseFiles]) -> None:
    """Refuse cases that no DICOM-SEG can be made for.

    Raises:
        UsageError: a case is no DICOM series.
    """
    for case in cases:
        image = case.images[0]
        if not (image.is_dir() and is_series(image)):
            raise UsageError(
                f"{image}: no DICOM series, which a DICOM-SEG must refer to. Give DICOM series only, or leave "
                "--save_dicom_seg out."
            )


def save_segmentations(
    cases: Sequence[CaseFiles], label_maps: Sequence[Path], labels: LabelSet, skip_existing: bool = False
) -> None:
    """Write each label map once more beside itself, as a DICOM-SEG that refers to the case's (first) series.

    Raises:
        AutosamError: one needs more memory than is allowed; those before it, and all label maps, are written.
    """
    pairs = [
        (case, file)
        for case, file in zip(cases, label_maps, strict=True)
        if not (skip_existing and _segmentation_file(case, file).exists())
    ]
    for case, file in progress(pairs, "DICOM-SEG", len(pairs), name=lambda pair: pair[0].name):
        array = read_label(file).array[0]
        needed = ENCODING_MIB + array.size * LABEL_BYTES / MIB + segmentation_mib(array, labels.targets)
        demand_memory(f"{case.name}: DICOM-SEG", needed)
        write_segmentation(_segmentation_file(case, file), array, labels.targets, case.images[0])


def _segmentation_file(case: CaseFiles, label_map: Path) -> Path:
    return label_map.with_name(f"{case.name}.dcm")
