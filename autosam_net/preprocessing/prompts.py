"""Prompts drawn from label maps, on the grids that they have to go to, and as the tokens that heads are given.

Whoever has the reference needs no segmentation: figures reached with prompts drawn from it bound what a user reaches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.case import CaseProperties, PreprocessedCase
from autosam_net.data.labels import LabelSet
from autosam_net.data.prompts import NO_TOKEN, Outline, Point, Prompt, PromptOptions
from autosam_net.errors import PlanError
from autosam_net.preprocessing.slices import TileGrid

HOLE_SHARE = 0.1  # of what is filled; smaller holes are taken for faults of the reference
DIGITS = 3  # of raw coordinates

Outlines = Mapping[str, tuple[Outline, ...]]
"""Class or region -> outline of its mask, and that of its hole if it is given apart."""


def draw_prompts(case: PreprocessedCase, labels: LabelSet, options: PromptOptions) -> list[Prompt]:
    """Return a prompt for each class or region in each slice of a labelled case; coordinates are preprocessed pixels.

    The same case and options give the same prompts.
    """
    assert case.labels is not None, f"{case.properties.name}: prompts are drawn from a reference"
    prompts, name = [], case.properties.name
    for position, plane in enumerate(case.labels):
        rng = np.random.default_rng([options.seed, position, *name.encode()])
        for label, (outline, *hole) in draw_outlines(plane, labels, options, rng).items():
            inner = hole[0] if hole else None
            prompts.append(Prompt(case=name, slice=position, label=label, hole=inner, **vars(outline)))
    return prompts


def draw_outlines(
    labels: NDArray[np.integer], label_set: LabelSet, options: PromptOptions, rng: np.random.Generator
) -> dict[str, tuple[Outline, ...]]:
    """Return the outlines of each class or region that is in a label map `(Y, X)`."""
    outlines = {}
    for name, values in label_set.targets.items():
        mask = np.isin(labels, values)
        if mask.any():
            contours = split_hole(mask) if options.holes else (mask,)
            outlines[name] = tuple(_draw_outline(contour, options, rng) for contour in contours)
    return outlines


def split_hole(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], ...]:
    """Return a mask `(Y, X)` without its holes, and the largest of these; a mask that is no ring is returned alone."""
    from scipy.ndimage import binary_fill_holes, label

    filled = binary_fill_holes(mask)
    holes, count = label(filled & ~mask)
    sizes = np.bincount(holes.ravel(), minlength=count + 1)[1:]
    if not count or sizes.max() < HOLE_SHARE * filled.sum():
        return (mask,)
    return filled, holes == 1 + np.argmax(sizes)


def _draw_outline(mask: NDArray[np.bool_], options: PromptOptions, rng: np.random.Generator) -> Outline:
    box = draw_box(mask, options.jitter, rng) if options.has_box else None
    return Outline(
        box=None if box is None else tuple(box.tolist()),
        foreground=tuple(map(tuple, draw_points(mask, options.points, rng).tolist())) if options.has_points else (),
    )


def draw_box(mask: NDArray[np.bool_], jitter: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return first and last column and row `(x, y, x, y)` of a mask `(Y, X)` that is not empty.

    Args:
        jitter: each side is moved by a whole number of pixels in [-jitter, jitter], not beyond the image.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    sides = np.array([[columns[0], rows[0]], [columns[-1], rows[-1]]])
    sides = sides + rng.integers(-jitter, jitter, size=(2, 2), endpoint=True)
    sides = np.clip(sides, 0, np.array(mask.shape[::-1]) - 1)
    return np.sort(sides, axis=0).reshape(4).astype(np.float32)  # sorted: those of a small mask may pass each other


def draw_points(mask: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return `count` points `(count, 2)` as (x, y) in a mask `(Y, X)` that is not empty.

    The first is the one farthest from the mask's border, the others are drawn with the same chance for every pixel.
    """
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]  # what lies beyond the image is outside
    deepest = np.unravel_index(np.argmax(depth), mask.shape)
    others = rng.choice(np.argwhere(mask), size=count - 1)
    return np.concatenate([[deepest], others])[:, ::-1].astype(np.float32)


def prompts_on_raw_grid(prompts: Sequence[Prompt], properties: CaseProperties) -> list[Prompt]:
    """Return prompts in preprocessed pixels with voxels of the raw image as coordinates."""
    scale, start = _scale_and_start(properties)

    def point(at: Point) -> Point:
        x, y = (np.array(at) + 0.5) / scale - 0.5 + start
        return round(float(x), DIGITS), round(float(y), DIGITS)

    return [_moved(prompt, point, properties.crop[0][0]) for prompt in prompts]


def prompts_on_preprocessed_grid(prompts: Sequence[Prompt], properties: CaseProperties) -> list[Prompt]:
    """Return prompts in voxels of the raw image with preprocessed pixels as coordinates.

    What lies in a slice that is cut off, since it is constant, is left out.

    Raises:
        PlanError: a prompt does not lie in the image.
    """
    check_inside(prompts, properties)
    scale, start = _scale_and_start(properties)

    def point(at: Point) -> Point:
        x, y = (np.array(at) - start + 0.5) * scale - 0.5
        return float(x), float(y)

    first, last = properties.crop[0]
    return [_moved(prompt, point, -first) for prompt in prompts if first <= prompt.slice < last]


def check_inside(prompts: Sequence[Prompt], properties: CaseProperties) -> None:
    """Refuse prompts that do not lie in their raw image.

    Raises:
        PlanError: names the first that does not.
    """
    shape = list(properties.raw_shape)
    slices = shape.pop(properties.slice_axis)
    rows, columns = shape
    for prompt in prompts:
        if not 0 <= prompt.slice < slices:
            raise PlanError(f"prompt of {prompt.place}: the image has slices 0 to {slices - 1}. Correct it.")
        for x, y in (point for outline in prompt.outlines for point in outline.points):
            if not (-0.5 <= x <= columns - 0.5 and -0.5 <= y <= rows - 0.5):
                raise PlanError(
                    f"prompt of {prompt.place}: x {x:g}, y {y:g} is outside of {columns} columns and {rows} rows, "
                    "counted from 0. Correct it."
                )


def _scale_and_start(properties: CaseProperties) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return preprocessed pixels per raw voxel, and the first raw voxel inside the crop, both (x, y)."""
    scale = np.array(properties.shape[:0:-1]) / np.array(properties.cropped_shape[:0:-1])
    return scale, np.array([properties.crop[axis][0] for axis in (2, 1)], float)


def mapped_outline(outline: Outline, point: Callable[[Point], Point]) -> Outline:
    """Return an outline with every point mapped; a box stays upright."""
    box = None
    if outline.corners:
        xs, ys = zip(*map(point, outline.corners), strict=True)
        box = (min(xs), min(ys), max(xs), max(ys))
    foreground, background = (tuple(map(point, points)) for points in (outline.foreground, outline.background))
    return Outline(box=box, foreground=foreground, background=background)


def _moved(prompt: Prompt, point: Callable[[Point], Point], slices: int) -> Prompt:
    """Return a prompt with every point mapped, `slices` further on."""
    hole = None if prompt.hole is None else mapped_outline(prompt.hole, point)
    return replace(prompt, **vars(mapped_outline(prompt, point)), slice=prompt.slice + slices, hole=hole)


def tile_outlines(prompts: Sequence[Prompt], grid: TileGrid, index: int) -> dict[str, tuple[Outline, ...]]:
    """Return what prompts in preprocessed pixels tell of the encoder input `index` of a case, in its pixels.

    Boxes are cut at the input's edges, and points beyond them left out.
    """
    position, tile = divmod(index, len(grid.origins))
    outlines: dict[str, tuple[Outline, ...]] = {}
    for prompt in prompts:
        if prompt.slice != position:
            continue
        inside = [_cut(outline, grid.origins[tile], grid.size) for outline in prompt.outlines]
        if inside[0].tells:
            outlines[prompt.label] = tuple(outline for outline in inside if outline.tells)
    return outlines


def _cut(outline: Outline, origin: tuple[int, int], size: int) -> Outline:
    def shifted(points: Sequence[Point]) -> NDArray[np.float64]:
        return np.reshape(points, (-1, 2)) - origin[::-1]

    def those_inside(points: Sequence[Point]) -> tuple[Point, ...]:
        moved = shifted(points)
        inside = ((moved > -0.5) & (moved < size - 0.5)).all(axis=1)
        return tuple((float(x), float(y)) for x, y in moved[inside])

    corners, box = shifted(outline.corners), None
    if len(corners) and (corners[1] > -0.5).all() and (corners[0] < size - 0.5).all():
        first, last = np.clip(corners, 0, size - 1).tolist()
        box = (*first, *last)
    return Outline(box=box, foreground=those_inside(outline.foreground), background=those_inside(outline.background))


def stack_tokens(inputs: Sequence[Outlines], labels: LabelSet) -> NDArray[np.float32]:
    """Return tokens `(N, classes, contours, tokens, 3)`, (x, y, mark) each, of N encoder inputs.

    There is a second contour where one of them has a hole; in places without a token the mark is `NO_TOKEN`.
    """
    names = list(labels.targets)
    tokens = {
        (row, names.index(name), contour): outline.tokens
        for row, outlines in enumerate(inputs)
        for name, contours in outlines.items()
        for contour, outline in enumerate(contours)
    }
    contours = 1 + max((contour for *_, contour in tokens), default=0)
    most = max(map(len, tokens.values()), default=1)
    stacked = np.zeros((len(inputs), len(names), contours, most, 3), np.float32)
    stacked[..., 2] = NO_TOKEN
    for place, found in tokens.items():
        stacked[place][: len(found)] = found
    return stacked
