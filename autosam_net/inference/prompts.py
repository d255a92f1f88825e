"""Prompts drawn from a reference mask, as the studies of unadapted SAM draw them.

Whoever has the reference needs no segmentation: figures reached with such prompts bound what a user can reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autosam_net.errors import UsageError

PromptKind = Literal["box", "point"]


@dataclass(frozen=True)
class PromptOptions:
    """How prompts are drawn.

    Attributes:
        kind: "box", around all of a class in a slice, or "point", in the foreground.
        points: for "point": the first lies deepest inside, the others anywhere in the mask, at random.
        jitter: for "box": each side is moved by up to so many pixels of the encoder input, in or out, at random.
        seed: of what is drawn at random.

    Raises:
        UsageError: fewer than one point, a negative jitter, or one that the kind of prompt has no use for.
    """

    kind: PromptKind
    points: int = 1
    jitter: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.points < 1:
            raise UsageError(f"--points {self.points}: give a number above 0")
        if self.jitter < 0:
            raise UsageError(f"--jitter {self.jitter}: give 0 or a number of pixels above it")
        if self.kind == "box" and self.points > 1:
            raise UsageError(f"--points {self.points} goes with --prompt point; leave it out, or ask for points")
        if self.kind == "point" and self.jitter > 0:
            raise UsageError(f"--jitter {self.jitter} goes with --prompt box; leave it out, or ask for boxes")

    @property
    def run_name(self) -> str:
        """Return the folder's name: `zero_shot_box`, or `zero_shot_point_points3_seed1`."""
        parts = [f"zero_shot_{self.kind}"]
        parts += [f"points{self.points}"] * (self.points > 1) + [f"jitter{self.jitter}"] * (self.jitter > 0)
        return "_".join(parts + [f"seed{self.seed}"] * (self.seed > 0))


def draw_box(mask: NDArray[np.bool_], jitter: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return first and last column and row `(x, y, x, y)` of a mask `(S, S)` that is not empty.

    Args:
        jitter: each side is moved by a whole number of pixels in [-jitter, jitter], not beyond the image.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    sides = np.array([[columns[0], rows[0]], [columns[-1], rows[-1]]])
    sides = np.clip(sides + rng.integers(-jitter, jitter, size=(2, 2), endpoint=True), 0, len(mask) - 1)
    return np.sort(sides, axis=0).reshape(4).astype(np.float32)  # sorted: those of a small mask may pass each other


def draw_points(mask: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return `count` points `(count, 2)` as (x, y) in a mask `(S, S)` that is not empty.

    The first is the one farthest from the mask's border, the others are drawn with the same chance for every pixel.
    """
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]  # what lies beyond the image is outside
    deepest = np.unravel_index(np.argmax(depth), mask.shape)
    others = rng.choice(np.argwhere(mask), size=count - 1)
    return np.concatenate([[deepest], others])[:, ::-1].astype(np.float32)
