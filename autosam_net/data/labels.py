"""What the voxel values of a label map mean, and what a head is trained to give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autosam_net.errors import DatasetError

LabelValue = int | tuple[int, ...]


@dataclass(frozen=True)
class LabelSet:
    """The labels of a data set, as nnU-Net v2 declares them.

    Attributes:
        values: name -> value, or -> several values for a region. `background` is 0; `ignore`, where present, is the
            highest value and marks voxels without an annotation.
        regions_class_order: for regions, the value painted for each region, in the order of `targets`.
    """

    values: Mapping[str, LabelValue]
    regions_class_order: tuple[int, ...] | None = field(default=None)

    def __post_init__(self) -> None:
        for problem in label_problems(self.values, self.regions_class_order):
            raise DatasetError(f"dataset.json: {problem}")

    @property
    def has_regions(self) -> bool:
        """Return whether the targets are (overlapping) regions, trained with a sigmoid each."""
        return any(isinstance(value, tuple) for name, value in self.values.items() if name != "background")

    @property
    def ignore(self) -> int | None:
        """Return the value of voxels that count for nothing, if there is one."""
        value = self.values.get("ignore")
        return value if isinstance(value, int) else None

    @property
    def targets(self) -> dict[str, tuple[int, ...]]:
        """Return name -> values of each foreground class or region, in the order of the declaration."""
        return {
            name: value if isinstance(value, tuple) else (value,)
            for name, value in self.values.items()
            if name not in ("background", "ignore")
        }

    @property
    def foreground_values(self) -> tuple[int, ...]:
        """Return all voxel values that are foreground, sorted."""
        return tuple(sorted({value for values in self.targets.values() for value in values} - {0}))

    @property
    def allowed_values(self) -> tuple[int, ...]:
        """Return all values that may stand in a label file, sorted."""
        ignored = () if self.ignore is None else (self.ignore,)
        return tuple(sorted({0, *self.foreground_values, *ignored}))

    @property
    def dtype(self) -> type[np.uint8 | np.uint16]:
        """Return the type of label maps that `decode` gives."""
        return np.uint8 if max(self.allowed_values) < 256 else np.uint16

    @property
    def outputs(self) -> int:
        """Return the number of channels of a head: one a region, or background and one a class."""
        return len(self.targets) + (0 if self.has_regions else 1)

    def decode(self, probabilities: NDArray[np.floating]) -> NDArray[np.integer]:
        """Return the label map `(...)` of the probabilities `(outputs, ...)`.

        Classes: the value of the most probable. Regions: each above 0.5 is painted in the order of the declaration.
        """
        if not self.has_regions:
            values = np.array([0, *(values[0] for values in self.targets.values())], self.dtype)
            return values[np.argmax(probabilities, axis=0)]
        painted = np.zeros(probabilities.shape[1:], self.dtype)
        for probability, value in zip(probabilities, self.regions_class_order or (), strict=True):
            painted[probability > 0.5] = value
        return painted


def label_problems(values: Mapping[str, LabelValue], order: tuple[int, ...] | None) -> list[str]:
    """Return what is wrong with a declaration of labels, in nnU-Net v2's terms; nothing if it is sound."""
    problems = []
    if values.get("background") not in (0, (0,)):
        problems.append(f"labels must contain 'background': 0, found {values.get('background')!r}. Add it.")
    plain = {name: value for name, value in values.items() if isinstance(value, int)}
    used = sorted({v for value in values.values() for v in (value if isinstance(value, tuple) else (value,))})
    if used != list(range(len(used))):
        problems.append(f"label values must be consecutive from 0, found {used}. Renumber them.")
    if len(used) < 2:
        problems.append("labels names no foreground class. Add at least one.")
    if "ignore" in values and (plain.get("ignore") != used[-1]):
        problems.append(f"'ignore' must be a single value, the highest ({used[-1]}), found {values['ignore']!r}.")
    regions = [name for name, value in values.items() if isinstance(value, tuple) and name != "background"]
    foreground = [name for name in values if name not in ("background", "ignore")]
    if regions and (order is None or len(order) != len(foreground)):
        problems.append(
            f"regions ({', '.join(regions)}) need 'regions_class_order' with {len(foreground)} values, found {order}."
        )
    return problems
