"""Augmented slices are drawn by the generator alone, with their own labels, and only those asked for are read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autosam_net.embedding.embed import preprocessed_cases
from autosam_net.embedding.views import draw_view
from autosam_net.parallel import Part
from autosam_net.preprocessing.preprocess import cases_folder, load_case
from autosam_net.preprocessing.slices import label_inputs, rgb_inputs, tile_grid
from autosam_net.training.slices import FreshSlices, cut_batch
from tests.support import Prepared


@pytest.fixture
def slices(prepared: Prepared) -> FreshSlices:
    root = cases_folder(prepared.dataset, prepared.folders)
    folders = [root / case for case in preprocessed_cases(prepared.dataset, prepared.folders)]
    return FreshSlices(folders, prepared.plan.label_set, prepared.plan.encoding)


def test_shapes_types_and_range(slices: FreshSlices) -> None:
    images, labels = slices.draw(np.random.default_rng(0), 5)
    assert images.shape == (5, 3, 64, 64) and images.dtype == torch.float32
    assert labels.shape == (5, 64, 64) and labels.dtype == torch.uint8
    assert images.min() >= 0 and images.max() <= 1 and images.std() > 0.01


def test_the_same_generator_draws_the_same_batch(slices: FreshSlices) -> None:
    (one, _), (same, _), (other, _) = (slices.draw(np.random.default_rng(seed), 4) for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_shares_of_a_batch_are_the_batch(slices: FreshSlices) -> None:
    whole, labels = slices.draw(np.random.default_rng(0), 6)
    for index in range(2):
        images, some = slices.draw(np.random.default_rng(0), 6, Part(index, 2))
        assert torch.equal(images, whole[index::2]) and torch.equal(some, labels[index::2])


def test_a_slice_and_its_labels_are_augmented_alike(slices: FreshSlices) -> None:
    """Each comes from `draw_view` with the seed drawn for it."""
    drawn = slices.rows.draw(np.random.default_rng(7), 4)
    images, labels = slices.draw(np.random.default_rng(7), 4)
    for row, one in enumerate(drawn):
        chosen = slices.inputs[one.number]
        case = load_case(chosen.folder)
        assert case.labels is not None
        grid = tile_grid(case.properties.shape[1:], slices.encoding)
        image = rgb_inputs(case.image, grid, slices.encoding.rgb, [chosen.index])[0]
        map_of = label_inputs(case.labels, grid, [chosen.index], 0)[0]
        expected, expected_labels = draw_view(image, map_of, one.seed, slices.encoding.rotation)
        assert np.array_equal(images[row].numpy(), expected)
        assert np.array_equal(labels[row].numpy(), expected_labels)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_parts_of_a_batch_keep_embedding_and_labels_together(share: float) -> None:
    labels = torch.zeros(6, 64, 64, dtype=torch.uint8)
    labels[:, 40:44, 8:12] = 2
    embeddings = labels[:, None, ::4, ::4].float()
    parts, cut_labels = cut_batch(np.random.default_rng(0), share, embeddings, labels, (2,))
    assert parts.shape[-1] == 16 * share and cut_labels.shape[-1] == 64 * share
    assert torch.equal(parts[:, 0], cut_labels[:, ::4, ::4].float())
    assert (cut_labels == 2).flatten(1).any(1).float().mean() > 0.5


def test_foreground_is_drawn_more_often_than_it_is_there(slices: FreshSlices) -> None:
    labelled = {number for _, numbers in slices.rows.of_target for number in numbers.tolist()}
    drawn = slices.rows.draw(np.random.default_rng(0), 400)
    assert sum(one.number in labelled for one in drawn) / 400 > 0.67
