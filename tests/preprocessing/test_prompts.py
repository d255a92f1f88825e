"""Prompts drawn from masks, on several grids, and as tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosam_net.data.case import CaseProperties, PreprocessedCase
from autosam_net.data.labels import LabelSet
from autosam_net.data.prompts import NO_TOKEN, Outline, Prompt, PromptOptions
from autosam_net.data.volume import Geometry
from autosam_net.errors import PlanError
from autosam_net.preprocessing.prompts import (
    draw_box,
    draw_outlines,
    draw_points,
    draw_prompts,
    prompts_on_preprocessed_grid,
    prompts_on_raw_grid,
    split_hole,
    stack_tokens,
    tile_outlines,
)
from autosam_net.preprocessing.slices import TileGrid

LABELS = LabelSet({"background": 0, "wall": 1, "cavity": 2})


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def masks() -> st.SearchStrategy[np.ndarray]:
    """Return masks `(24, 24)` with at least one pixel."""

    def mask(seed: int, density: float) -> np.ndarray:
        drawn = generator(seed).random((24, 24)) < density
        drawn[seed % 24, seed // 24 % 24] = True
        return drawn

    return st.builds(mask, st.integers(0, 10**6), st.floats(0, 1))


def rectangle(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((24, 24), bool)
    mask[rows, columns] = True
    return mask


def test_a_box_names_first_and_last_column_and_row() -> None:
    box = draw_box(rectangle(slice(3, 9), slice(10, 21)), 0, generator())
    assert box.tolist() == [10, 3, 20, 8]
    assert box.dtype == np.float32


@given(masks(), st.integers(0, 30), st.integers(0, 100))
def test_a_jittered_box_is_a_box_near_the_plain_one(mask: np.ndarray, jitter: int, seed: int) -> None:
    plain, drawn = draw_box(mask, 0, generator()), draw_box(mask, jitter, generator(seed))
    assert (drawn[:2] <= drawn[2:]).all()
    assert ((drawn >= 0) & (drawn <= 23)).all()
    assert (np.abs(drawn - plain).max()) <= max(jitter, 0) or (plain[2:] - plain[:2]).min() < 2 * jitter
    assert draw_box(mask, jitter, generator(seed)).tolist() == drawn.tolist()


@given(masks(), st.integers(1, 5), st.integers(0, 100))
def test_points_lie_in_the_mask(mask: np.ndarray, count: int, seed: int) -> None:
    points = draw_points(mask, count, generator(seed))
    assert points.shape == (count, 2)
    assert all(mask[int(y), int(x)] for x, y in points)
    assert draw_points(mask, count, generator(seed)).tolist() == points.tolist()


def test_the_first_point_lies_deepest_inside() -> None:
    mask = rectangle(slice(2, 9), slice(4, 11)) | rectangle(slice(15, 18), slice(15, 18))
    assert draw_points(mask, 1, generator()).tolist() == [[7, 5]]  # (x, y)
    ring = rectangle(slice(4, 20), slice(4, 20)) & ~rectangle(slice(6, 18), slice(6, 15))
    ((x, y),) = draw_points(ring, 1, generator())
    assert 15 <= x < 20 and ring[int(y), int(x)]  # in the wide part of the wall


def test_beyond_the_image_is_outside() -> None:
    assert draw_points(np.ones((25, 25), bool), 1, generator()).tolist() == [[12, 12]]


def ring_and_cavity() -> np.ndarray:
    """Return a label map `(24, 24)` of a wall around a cavity."""
    labels = np.zeros((24, 24), np.uint8)
    labels[4:20, 6:18] = 1
    labels[8:16, 9:15] = 2
    return labels


def test_a_ring_is_split_into_what_is_filled_and_its_hole() -> None:
    labels = ring_and_cavity()
    filled, hole = split_hole(labels == 1)
    assert np.array_equal(filled, labels > 0) and np.array_equal(hole, labels == 2)
    labels[4:20, 11] = 0  # an open wall has no hole
    assert len(split_hole(labels == 1)) == 1
    speck = rectangle(slice(2, 20), slice(2, 20))
    speck[5, 5] = False
    assert np.array_equal(split_hole(speck)[0], speck), "a hole of a pixel is a fault of the reference"


def test_every_class_that_is_there_is_outlined() -> None:
    plain = draw_outlines(ring_and_cavity(), LABELS, PromptOptions("box"), generator())
    assert plain == {"wall": (Outline(box=(6, 4, 17, 19)),), "cavity": (Outline(box=(9, 8, 14, 15)),)}
    apart = draw_outlines(ring_and_cavity(), LABELS, PromptOptions("box", holes=True), generator())
    assert apart["wall"] == (Outline(box=(6, 4, 17, 19)), Outline(box=(9, 8, 14, 15)))
    both = draw_outlines(ring_and_cavity(), LABELS, PromptOptions("both", points=2), generator())
    assert both["cavity"][0].box and len(both["cavity"][0].foreground) == 2
    assert draw_outlines(np.zeros((24, 24)), LABELS, PromptOptions("box"), generator()) == {}


def properties(axis: int = 1) -> CaseProperties:
    """Return a case of 5 slices of 40 x 60 voxels along an axis, of which a part is kept, at twice the resolution."""
    shape = [40, 60]
    shape.insert(axis, 5)
    geometry = Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    return CaseProperties("a", tuple(shape), geometry, axis, ((1, 4), (10, 34), (20, 44)), (3, 48, 48))


def test_prompts_go_to_the_raw_grid_and_back() -> None:
    labels = np.stack([np.zeros((48, 48), np.uint8), np.kron(ring_and_cavity(), np.ones((2, 2), np.uint8))] * 2)[:3]
    case = PreprocessedCase(np.zeros((1, 3, 48, 48), np.float32), labels, properties())
    drawn = draw_prompts(case, LABELS, PromptOptions("both", points=3, jitter=2, holes=True))
    assert [(prompt.slice, prompt.label) for prompt in drawn] == [(1, "wall"), (1, "cavity")]
    raw = prompts_on_raw_grid(drawn, case.properties)
    assert raw[0].slice == 2
    back = prompts_on_preprocessed_grid(raw, case.properties)
    for one, other in zip(drawn, back, strict=True):
        assert (one.slice, one.label, len(one.outlines)) == (other.slice, other.label, len(other.outlines))
        assert np.allclose([p for o in one.outlines for p in o.points], [p for o in other.outlines for p in o.points])
    assert draw_prompts(case, LABELS, PromptOptions("both", points=3, jitter=2, holes=True)) == drawn


def test_a_voxel_is_where_its_pixels_are() -> None:
    prompt = Prompt(case="a", slice=1, label="wall", box=(20, 10, 21, 11))
    (placed,) = prompts_on_preprocessed_grid([prompt], properties())
    assert (placed.slice, placed.box) == (0, (0.5, 0.5, 2.5, 2.5))  # the middle of two by two pixels each
    assert prompts_on_preprocessed_grid([Prompt(case="a", slice=4, label="wall", box=(0, 0, 1, 1))], properties()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"slice": 5, "box": (20, 10, 21, 11)}, "wall in slice 5 of a: the image has slices 0 to 4"),
        ({"slice": -1, "box": (20, 10, 21, 11)}, "the image has slices 0 to 4"),
        ({"slice": 1, "box": (20, 10, 60, 11)}, "x 60, y 11 is outside of 60 columns and 40 rows"),
        ({"slice": 1, "foreground": ((3, 40),)}, "x 3, y 40 is outside"),
        ({"slice": 1, "box": (0, 0, 1, 1), "hole": Outline(box=(-2, 0, 1, 1))}, "x -2, y 0 is outside"),
    ],
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_lies_outside_of_the_image_is_refused(words: dict[str, object], message: str, axis: int) -> None:
    with pytest.raises(PlanError, match=message):
        prompts_on_preprocessed_grid([Prompt(case="a", label="wall", **words)], properties(axis))


def test_a_tile_is_told_of_what_lies_in_it() -> None:
    grid = TileGrid((40, 24), 24, ((0, 0), (16, 0)))
    prompts = [
        Prompt(case="a", slice=1, label="wall", box=(2, 10, 20, 30), foreground=((3, 12), (4, 35))),
        Prompt(case="a", slice=1, label="cavity", box=(2, 2, 5, 5), hole=Outline(box=(3, 3, 4, 4))),
    ]
    assert tile_outlines(prompts, grid, 0) == {}
    assert tile_outlines(prompts, grid, 2) == {
        "wall": (Outline(box=(2, 10, 20, 23), foreground=((3, 12),)),),
        "cavity": (Outline(box=(2, 2, 5, 5)), Outline(box=(3, 3, 4, 4))),
    }
    assert tile_outlines(prompts, grid, 3) == {"wall": (Outline(box=(2, 0, 20, 14), foreground=((4, 19),)),)}


def test_tokens_are_sams() -> None:
    box, point = Outline(box=(1, 2, 3, 4)), Outline(foreground=((5, 6),), background=((7, 8),))
    stacked = stack_tokens([{"wall": (point,)}, {"cavity": (box, box)}], LABELS)
    assert stacked.shape == (2, 2, 2, 3, 3)  # inputs, classes, contours, tokens, (x, y, mark)
    assert stacked[0, 0, 0].tolist() == [[5, 6, 1], [7, 8, 0], [0, 0, -1]]
    assert stacked[1, 1, 1, :2].tolist() == [[1, 2, 2], [3, 4, 3]]
    assert (stacked[..., 2] == NO_TOKEN).sum() == 24 - 3 - 4
    assert stack_tokens([{}], LABELS).shape == (1, 2, 1, 1, 3)
