"""One image in memory or on disk to its labels, probabilities and the Dice to expect; what notebooks call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.labels import LabelSet
from autosam_net.data.prompts import Prompt
from autosam_net.data.volume import Geometry
from autosam_net.errors import UsageError
from autosam_net.evaluation.expected_dice import mean_of
from autosam_net.imageio import write_label
from autosam_net.imageio.open import Image, open_image
from autosam_net.inference.export import fill_in, label_map
from autosam_net.inference.load import load_model
from autosam_net.inference.model import Model
from autosam_net.inference.uncertainty import watch_members
from autosam_net.registry import suggest


@dataclass(frozen=True)
class Segmentation:
    """A segmented image.

    Attributes:
        labels: label map of the image's spatial shape: `(Z, Y, X)`, or `(Y, X)` of a 2D image.
        geometry: where its voxels lie.
        label_set: what its values mean.
        probabilities: float16 `(outputs, Z, Y, X)` or `(outputs, Y, X)`, on the same grid: background and classes, or
            regions; None where they were not asked for.
        expected_dice: class -> Dice to expect without a reference, None where it is not known.
        flagged: whether the mean of these is so low that the case counts as bad; None where it is not known.
    """

    labels: NDArray[np.integer]
    geometry: Geometry
    label_set: LabelSet
    probabilities: NDArray[np.float16] | None
    expected_dice: Mapping[str, float | None]
    flagged: bool | None

    @property
    def expected_mean_dice(self) -> float | None:
        """Return the mean Dice to expect, over the classes for which it is known."""
        return mean_of(self.expected_dice.values())

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Return where a class or region is.

        Raises:
            UsageError: there is no class of that name.
        """
        targets = self.label_set.targets
        if name not in targets:
            raise UsageError(f"class {name!r}: not one of this model's; {suggest(name, targets)}")
        return np.isin(self.labels, targets[name])

    def volumes(self) -> dict[str, float]:
        """Return class -> volume in ml; of a 2D image, area in mm^2."""
        voxel = prod(self.geometry.spacing) / (1.0 if self.labels.ndim == 2 else 1000.0)
        return {name: float(self.mask(name).sum() * voxel) for name in self.label_set.targets}

    def save(self, path: Path | str) -> Path:
        """Write the label map with its geometry, in the format of the file's ending; return the path.

        Raises:
            ImageFileError: the ending is unknown, or the format cannot hold labels exactly.
        """
        write_label(Path(path), self.labels[None] if self.labels.ndim == 2 else self.labels, self.geometry)
        return Path(path)


def segment(
    image: Image,
    model: Model | int | str | Path,
    spacing: Sequence[float] | None = None,
    probabilities: bool = False,
    prompts: Sequence[Prompt] | None = None,
) -> Segmentation:
    """Return the segmentation of one image, with test-time augmentation and post-processing as the model has them.

        model = load_model(27)
        result = segment("patient101_frame01.nii.gz", model)
        result = segment(array, model, spacing=(10.0, 1.5, 1.5))

    Args:
        image: a file, a folder with a DICOM series, a list of the files of all channels in their order, a volume of
            `read_image`, or an array `(Z, Y, X)`, `(C, Z, Y, X)`, `(Y, X)` or `(C, Y, X)`. Nothing is written.
        model: of `load_model`, or what that takes. Load it once to segment more than one image.
        spacing: of an array, mm along each spatial axis in array order: two for a 2D image, else three.
        probabilities: whether to keep the probabilities too.
        prompts: in voxels of the image, for a model that needs them.

    Raises:
        DatasetError: the image has other axes or channels than the model needs, or a voxel is not a finite number.
        ImageFileError: a file cannot be read.
        ModelError: the model needs prompts, and there are none, or the other way round.
        PlanError: a prompt does not lie in the image.
        UsageError: an array without a spacing, or a file with one.
    """
    if not isinstance(model, Model):
        model = load_model(model)
    volume = open_image(image, spacing)
    name = str(image) if isinstance(image, (str, Path)) else "image"
    case, labels = model.preprocess(name, volume), model.plan.label_set
    watch = watch_members(labels, len(model.heads), case.properties)
    slices: Iterable[NDArray[np.float32]] = watch.means(model.members(case, prompts))
    whole = np.zeros((labels.outputs, *volume.shape), np.float16) if probabilities else None
    if whole is not None:
        array = whole
        slices = fill_in(lambda: array, slices, case.properties, labels)
    decoded = label_map(slices, case.properties, labels, model.largest_only)
    expected, bad = model.expect(watch.confidences())
    if volume.geometry.dimensions == 2:
        decoded, whole = decoded[0], None if whole is None else whole[:, 0]
    plain = {name: None if dice is None else float(dice) for name, dice in expected.items()}  # no numpy in a print
    return Segmentation(decoded, volume.geometry, labels, whole, plain, None if bad is None else bool(bad))
