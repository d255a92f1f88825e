"""Prompts drawn from masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosam_net.errors import UsageError
from autosam_net.inference.prompts import PromptOptions, draw_box, draw_points


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"kind": "point", "points": 0}, "--points 0: give a number above 0"),
        ({"kind": "box", "points": 2}, "--points 2 goes with --prompt point"),
        ({"kind": "box", "jitter": -1}, "--jitter -1: give 0 or a number of pixels above it"),
        ({"kind": "point", "jitter": 3}, "--jitter 3 goes with --prompt box"),
    ],
)
def test_options_that_contradict_each_other_are_refused(words: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PromptOptions(**words)


def test_every_way_of_prompting_has_a_folder_of_its_own() -> None:
    assert PromptOptions("box").run_name == "zero_shot_box"
    assert PromptOptions("box", jitter=5).run_name == "zero_shot_box_jitter5"
    assert PromptOptions("point", points=3, seed=1).run_name == "zero_shot_point_points3_seed1"
