"""A case for the page's viewer: slices as small JPEGs, reference and prediction as outlines that can be filled."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.dataset import CaseFiles
from autosam_net.data.labels import LabelSet
from autosam_net.data.volume import Volume
from autosam_net.errors import DatasetError
from autosam_net.evaluation.metrics import dice_of_classes
from autosam_net.evaluation.report import check_pair
from autosam_net.imageio import read_case, read_label
from autosam_net.reporting import overlay

SLICES = 20  # of a case at most
SIDE = 400  # pixels of a picture's longer side at most
QUALITY = 80  # of JPEG
MARGIN = 0.25  # around the foreground when zoomed in, as a share of its size


@dataclass(frozen=True)
class _Stack:
    """A case, slices first.

    Attributes:
        pictures: `(C, Z, Y, X)`.
        reference, prediction: `(Z, Y, X)`; the latter None before anything was predicted.
        spacing: mm between rows and between columns.
    """

    pictures: NDArray[np.generic]
    reference: NDArray[np.integer]
    prediction: NDArray[np.integer] | None
    spacing: tuple[float, float]

    @property
    def label_maps(self) -> list[NDArray[np.integer]]:
        return [labels for labels in (self.reference, self.prediction) if labels is not None]


def view_case(case: CaseFiles, prediction: Path | None, labels: LabelSet, axis: int) -> dict[str, Any]:
    """Return what the viewer shows of a labelled case, fit for JSON; lengths are half pixels, which makes them whole.

    Args:
        prediction: label map on the grid of the reference.
        axis: across which slices are taken.

    Raises:
        DatasetError: image, reference and prediction lie on different grids.
        ImageFileError: a file is missing or cannot be read.
    """
    stack = _read(case, prediction, axis)
    shown = overlay.slices_to_show(stack.label_maps, stack.reference.shape[0], SLICES)
    window = overlay.intensity_window(stack.pictures[0])
    colour = overlay.is_colour(stack.pictures)
    _, height, width = stack.reference.shape
    return {
        "depth": stack.reference.shape[0],
        "size": [2 * width, 2 * height],
        "spacing": [stack.spacing[1] / 2, stack.spacing[0] / 2],
        "focus": _focus(stack.label_maps),
        "slices": [
            {
                "number": index + 1,
                "image": _jpeg(stack.pictures[:, index], window, colour),
                "reference": _paths(stack.reference[index], labels),
                "prediction": None if stack.prediction is None else _paths(stack.prediction[index], labels),
                "dice": _slice_dice(stack, index, labels),
            }
            for index in shown
        ],
    }


def _read(case: CaseFiles, prediction: Path | None, axis: int) -> _Stack:
    if case.label is None or not case.images:
        raise DatasetError(f"{case.name}: image or label is not in the raw data set any more")
    image, reference = read_case(case.images), read_label(case.label)
    check_pair(case.name, reference, Volume(image.array[:1], image.geometry))
    predicted = None if prediction is None else read_label(prediction)
    if predicted is not None:
        check_pair(case.name, reference, predicted)
    return _Stack(
        overlay.slices_first(image.array, axis),
        overlay.slices_first(reference.array[0], axis),
        None if predicted is None else overlay.slices_first(predicted.array[0], axis),
        overlay.plane_spacing(image.geometry.spacing, axis),
    )


def _slice_dice(stack: _Stack, index: int, labels: LabelSet) -> float | None:
    """Return the mean Dice over the classes in a slice, None where there are none."""
    if stack.prediction is None:
        return None
    found = dice_of_classes(stack.reference[index], stack.prediction[index], labels)
    defined = [value for value in found.values() if value is not None]
    return round(sum(defined) / len(defined), 3) if defined else None


def _jpeg(planes: NDArray[np.generic], window: tuple[float, float], colour: bool) -> str:
    """Return a slice `(C, Y, X)` as a data address."""
    from PIL import Image

    if colour:
        picture = Image.fromarray(np.moveaxis(planes, 0, -1).astype(np.uint8))
    else:
        picture = Image.fromarray(overlay.to_eight_bit(planes[0], window))
    picture.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    picture.save(content, format="JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode("ascii")


def _paths(plane: NDArray[np.integer], labels: LabelSet) -> Mapping[str, str]:
    """Return class -> its outline in a label map `(Y, X)` as an SVG path; classes that are not there are left out."""
    curves = {name: overlay.outline(np.isin(plane, values)) for name, values in labels.targets.items()}
    return {name: "".join(map(_path, found)) for name, found in curves.items() if found}


def _path(curve: NDArray[np.float64]) -> str:
    points = np.rint(2 * curve).astype(int)
    steps = " ".join(f"{x} {y}" for x, y in np.diff(points, axis=0)[:-1])
    return f"M{points[0, 0]} {points[0, 1]}l{steps}z"


def _focus(label_maps: list[NDArray[np.integer]]) -> list[int]:
    """Return left, top, width and height of all foreground with a margin, square, in half pixels; or of everything."""
    filled = np.any([labels.any(axis=0) for labels in label_maps], axis=0)
    height, width = filled.shape
    if not filled.any():
        return [0, 0, 2 * width, 2 * height]
    rows, columns = np.flatnonzero(filled.any(axis=1)), np.flatnonzero(filled.any(axis=0))
    half = (0.5 + MARGIN) * max(int(np.ptp(rows)), int(np.ptp(columns)), 16)
    (left, right), (top, bottom) = (
        (max(0.0, (places[0] + places[-1]) / 2 - half), min(length, (places[0] + places[-1]) / 2 + half))
        for places, length in ((columns, width), (rows, height))
    )
    return [round(2 * part) for part in (left, top, right - left, bottom - top)]
