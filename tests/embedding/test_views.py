"""Augmented views depend on their seed alone."""

from __future__ import annotations

import random

import numpy as np
import pytest

from autosam_net.embedding.views import draw_view, draw_views, view_seed


def example() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:64, 0:64]
    labels = (np.hypot(y - 32, x - 32) < 15).astype(np.uint8) * 2
    image = np.repeat(0.2 + 0.3 * labels[None].astype(np.float32), 3, axis=0)
    return image, labels


def test_the_same_seed_gives_the_same_bytes_and_leaves_the_generators_alone() -> None:
    image, labels = example()
    np.random.seed(3)
    random.seed(3)
    expected = np.random.random(), random.random()
    np.random.seed(3)
    random.seed(3)
    first = draw_view(image, labels, 11, 180.0)
    assert (np.random.random(), random.random()) == expected
    second = draw_view(image, labels, 11, 180.0)
    assert first[0].tobytes() == second[0].tobytes() and first[1].tobytes() == second[1].tobytes()


def test_views_differ_stay_in_range_and_move_image_and_labels_together() -> None:
    image, labels = example()
    views = [draw_view(image, labels, seed, 180.0) for seed in range(8)]
    assert len({view.tobytes() for view, _ in views}) == 8
    for view, moved in views:
        assert view.shape == image.shape and view.dtype == np.float32
        assert view.min() >= 0 and view.max() <= 1
        assert set(np.unique(moved)) <= {0, 2}
        assert view[0][moved == 2].mean() > view[0][moved == 0].mean()


def test_several_processes_draw_the_same_views_as_one() -> None:
    image, labels = example()
    images, maps, seeds = np.stack([image] * 3), np.stack([labels] * 3), [5, 6, 7]
    alone = draw_views(images, maps, seeds, 30.0)
    for view, seed in zip(alone[0], seeds, strict=True):
        assert view.tobytes() == draw_view(image, labels, seed, 30.0)[0].tobytes()
    for one, shared in zip(alone, draw_views(images, maps, seeds, 30.0, processes=2), strict=True):
        assert one.dtype == shared.dtype and one.tobytes() == shared.tobytes()


def test_seeds_differ_by_case_slice_and_view() -> None:
    seeds = {view_seed(case, index, view) for case in "ab" for index in range(5) for view in range(5)}
    assert len(seeds) == 50
    assert max(seeds) < 2**32


def test_views_are_turned_no_further_than_asked_for() -> None:
    angles = {limit: [abs(tilt(draw_view(*pointer(), seed, limit)[1])) for seed in range(24)] for limit in (0.0, 180.0)}
    assert max(angles[0.0]) < 20  # scaling and elastic deformation tilt a little
    assert max(angles[180.0]) > 120


def pointer() -> tuple[np.ndarray, np.ndarray]:
    """Return a flat image, and labels whose larger part (1) lies left of the smaller (2)."""
    labels = np.zeros((64, 64), np.uint8)
    labels[28:36, 20:32], labels[28:36, 32:44] = 1, 2
    return np.zeros((3, 64, 64), np.float32), labels


def tilt(labels: np.ndarray) -> float:
    """Return the direction from label 1 to label 2 in degrees."""
    step = np.argwhere(labels == 2).mean(axis=0) - np.argwhere(labels == 1).mean(axis=0)
    return float(np.degrees(np.arctan2(*step)))


def test_other_threads_that_draw_random_numbers_change_no_view(monkeypatch: pytest.MonkeyPatch) -> None:
    image, labels = np.random.default_rng(0).random((3, 64, 64), np.float32), np.zeros((64, 64), np.uint8)
    undisturbed = [draw_view(image, labels, seed, 30.0)[0] for seed in range(12)]
    plain_uniform = np.random.uniform

    def uniform(*bounds):
        random.random()  # as a thread of Dask may do at this moment
        return plain_uniform(*bounds)

    monkeypatch.setattr(np.random, "uniform", uniform)
    before = random.getstate()
    disturbed = [draw_view(image, labels, seed, 30.0)[0] for seed in range(12)]
    assert random.getstate() != before, "the views draw no number from numpy's uniform"
    np.testing.assert_array_equal(disturbed, undisturbed)
