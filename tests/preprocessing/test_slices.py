"""Encoder inputs and the tiles they are cut into."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autosam_net.data.encoding import Encoding, RgbSource
from autosam_net.preprocessing.slices import count_inputs, label_inputs, rgb_inputs, tile_grid

SINGLE = (RgbSource(0), RgbSource(0), RgbSource(0))


def encoding(size: int = 64, overlap: float = 0.25, rgb: tuple[RgbSource, RgbSource, RgbSource] = SINGLE) -> Encoding:
    return Encoding("any", None, size, overlap, rgb, maximum_views=1, slice_budget=1, rotation=180.0)


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([0.0, 0.25, 0.5]))
def test_tiles_cover_every_pixel_and_overlap_as_planned(height: int, width: int, overlap: float) -> None:
    grid = tile_grid((height, width), encoding(overlap=overlap))
    covered = np.zeros((height, width), int)
    for tile in range(len(grid.origins)):
        outside, inside = grid.window(tile)
        covered[outside] += 1
        assert covered[outside].shape == np.zeros((64, 64))[inside].shape
    assert covered.min() >= 1
    starts = sorted({row for row, _ in grid.origins})
    assert all(later - earlier <= 64 * (1 - overlap) + 1 for earlier, later in itertools.pairwise(starts))


def test_a_small_slice_is_centred_on_black() -> None:
    grid = tile_grid((40, 64), encoding())
    image = np.ones((1, 1, 40, 64), np.float32)
    inputs = rgb_inputs(image, grid, SINGLE, [0])
    assert inputs.shape == (1, 3, 64, 64)
    assert inputs[0, :, 12:52].all()
    assert not inputs[0, :, :12].any() and not inputs[0, :, 52:].any()
    labels = label_inputs(np.ones((1, 40, 64), np.uint8), grid, [0], outside_value=9)
    assert (labels[0, :12] == 9).all() and (labels[0, 12:52] == 1).all()


def test_channels_and_neighbours_fill_the_three_places() -> None:
    image = np.arange(2 * 3, dtype=np.float32).reshape(2, 3, 1, 1) * np.ones((1, 1, 64, 64), np.float32)
    rgb = (RgbSource(0, -1), RgbSource(0), RgbSource(1, 1))
    inputs = rgb_inputs(image, tile_grid((64, 64), encoding()), rgb, range(3))
    assert inputs[:, :, 0, 0].tolist() == [[0, 0, 4], [0, 1, 5], [1, 2, 5]]  # the ends repeat the end slice


def test_numbers_run_over_tiles_first() -> None:
    image = np.random.default_rng(0).random((1, 3, 100, 70)).astype(np.float32)
    grid = tile_grid((100, 70), encoding())
    assert count_inputs((3, 100, 70), encoding()) == 3 * len(grid.origins)
    every = rgb_inputs(image, grid, SINGLE, range(3 * len(grid.origins)))
    outside, inside = grid.window(1)
    np.testing.assert_array_equal(every[len(grid.origins) + 1, 0][inside], image[0, 1][outside])
