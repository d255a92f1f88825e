"""Overlap and surface distance of a predicted label map and its reference, class by class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.labels import LabelSet

Mask = NDArray[np.bool_]

NSD_TOLERANCE = 2.0
"""Surface distance in mm that counts as agreement.

The value of MedSAM's evaluation (Ma et al., Nature Communications 15, 654, 2024), for all structures alike. Where the
spread between annotators is known, take that instead (Maier-Hein et al., Metrics reloaded, Nature Methods 21, 2024).
"""


@dataclass(frozen=True)
class ClassMetrics:
    """One class or region in one case; the names of the fields are nnU-Net's where nnU-Net has them.

    What the reference lacks and the prediction lacks too is undefined (None). Where only one of them has voxels,
    the overlaps Dice, IoU and NSD are 0 and the distances None.

    Attributes:
        Dice, IoU: overlap, 0 to 1.
        HD95: 95th percentile of the surface distances, the larger of both directions, in mm.
        ASSD: average symmetric surface distance in mm.
        NSD: normalised surface Dice: fraction of both surfaces within the tolerance of the other, 0 to 1.
        TP, FP, FN, TN: voxels, those with the ignore label left out.
        n_pred, n_ref: voxels of the prediction and of the reference.
        volume_pred_mm3, volume_ref_mm3: the same in mm3.
    """

    Dice: float | None
    IoU: float | None
    HD95: float | None
    ASSD: float | None
    NSD: float | None
    TP: int
    FP: int
    FN: int
    TN: int
    n_pred: int
    n_ref: int
    volume_pred_mm3: float
    volume_ref_mm3: float


def evaluate_case(
    reference: NDArray[np.integer],
    prediction: NDArray[np.integer],
    spacing: tuple[float, float, float],
    labels: LabelSet,
    tolerance: float = NSD_TOLERANCE,
) -> dict[str, ClassMetrics]:
    """Return name -> metrics of every class or region.

    Args:
        reference, prediction: label maps `(Z, Y, X)`; voxels that have the ignore label in the reference count nowhere.
        spacing: mm along (Z, Y, X).
        tolerance: of the normalised surface Dice, in mm.

    Raises:
        ValueError: the two arrays differ in shape.
    """
    counted = _counted(reference, prediction, labels)
    return {
        name: class_metrics(
            np.isin(reference, values) & counted,
            np.isin(prediction, values) & counted,
            spacing,
            tolerance,
            voxels=int(counted.sum()),
        )
        for name, values in labels.targets.items()
    }


def dice_of_classes(
    reference: NDArray[np.integer], prediction: NDArray[np.integer], labels: LabelSet
) -> dict[str, float | None]:
    """Return name -> Dice of every class or region, as `evaluate_case` does, without the distances that take time."""
    counted = _counted(reference, prediction, labels)
    return {
        name: dice(np.isin(reference, values) & counted, np.isin(prediction, values) & counted)
        for name, values in labels.targets.items()
    }


def _counted(reference: NDArray[np.integer], prediction: NDArray[np.integer], labels: LabelSet) -> Mask:
    """Return the voxels that count: all, or those without the ignore label."""
    if reference.shape != prediction.shape:
        raise ValueError(f"reference {reference.shape} and prediction {prediction.shape} differ in shape")
    return np.ones(reference.shape, bool) if labels.ignore is None else reference != labels.ignore


def dice(reference: Mask, prediction: Mask) -> float | None:
    """Return the Dice coefficient of two masks, None where both are empty."""
    voxels = int(reference.sum()) + int(prediction.sum())
    return 2 * int((reference & prediction).sum()) / voxels if voxels else None


def class_metrics(
    reference: Mask, prediction: Mask, spacing: tuple[float, float, float], tolerance: float, voxels: int | None = None
) -> ClassMetrics:
    """Return the metrics of one class from its two masks `(Z, Y, X)`.

    Args:
        voxels: number of voxels that count; by default all.
    """
    n_ref, n_pred, overlap = int(reference.sum()), int(prediction.sum()), int((reference & prediction).sum())
    union = n_ref + n_pred - overlap
    distances = surface_distances(reference, prediction, spacing) if n_ref and n_pred else None
    voxel_mm3 = float(np.prod(spacing))
    return ClassMetrics(
        Dice=dice(reference, prediction),
        IoU=overlap / union if union else None,
        HD95=max(float(np.percentile(part, 95)) for part in distances) if distances else None,
        ASSD=float(np.concatenate(distances).mean()) if distances else None,
        NSD=float((np.concatenate(distances) <= tolerance).mean()) if distances else (0.0 if union else None),
        TP=overlap,
        FP=n_pred - overlap,
        FN=n_ref - overlap,
        TN=(reference.size if voxels is None else voxels) - union,
        n_pred=n_pred,
        n_ref=n_ref,
        volume_pred_mm3=n_pred * voxel_mm3,
        volume_ref_mm3=n_ref * voxel_mm3,
    )


def surface_distances(
    reference: Mask, prediction: Mask, spacing: tuple[float, float, float]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return the distances in mm from each surface voxel of one mask to the other's surface, in both directions.

    Surfaces are the voxels that an erosion removes (MONAI's definition). An image of one slice is taken as 2D: in 3D
    every one of its voxels would be surface. Both masks must have voxels.

    Args:
        reference, prediction: `(Z, Y, X)`.
        spacing: mm along (Z, Y, X).
    """
    from monai.metrics import get_mask_edges, get_surface_distance

    axes = [axis for axis, length in enumerate(reference.shape) if length > 1] or [reference.ndim - 1]
    flat = tuple(axis for axis in range(reference.ndim) if axis not in axes)
    reference, prediction = reference.squeeze(flat), prediction.squeeze(flat)
    steps = [spacing[axis] for axis in axes]
    box = _joint_box(reference, prediction)
    edges = get_mask_edges(prediction[box], reference[box], crop=False)
    return (
        np.asarray(get_surface_distance(edges[0], edges[1], spacing=steps)),
        np.asarray(get_surface_distance(edges[1], edges[0], spacing=steps)),
    )


def _joint_box(reference: Mask, prediction: Mask) -> tuple[slice, ...]:
    """Return the bounding box of both masks with a margin of one voxel, so that cutting it out moves no surface."""
    union = reference | prediction
    box = []
    for axis in range(union.ndim):
        occupied = np.flatnonzero(union.any(axis=tuple(other for other in range(union.ndim) if other != axis)))
        box.append(slice(max(int(occupied[0]) - 1, 0), int(occupied[-1]) + 2))
    return tuple(box)
