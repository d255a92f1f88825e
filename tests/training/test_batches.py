"""Batches are drawn by the generator alone, and rare classes are not drowned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from autosam_net.data.labels import LabelSet
from autosam_net.embedding.cache import ArrayFile, CachedEmbedding
from autosam_net.training.batches import CachedBatches, cut
from autosam_net.training.losses import SegmentationLoss

LABELS = LabelSet({"background": 0, "common": 1, "rare": 2})


@pytest.fixture
def entry(tmp_path: Path) -> Callable[..., CachedEmbedding]:
    """Return a function that makes an entry whose embeddings are filled with the numbers of their rows."""

    def make(count: int, rare_row: int | None = None, dtype: type = np.uint8, rare: int = 2) -> CachedEmbedding:
        arrays = np.arange(count)[:, None, None, None] * np.ones((1, 2, 3, 3)), np.ones((count, 12, 12), dtype)
        if rare_row is not None:
            arrays[1][rare_row] = rare
        files = [tmp_path / f"{count}_{name}.npy" for name in ("embedding", "labels")]
        np.save(files[0], arrays[0].astype(np.float16))
        np.save(files[1], arrays[1])
        present = tuple(tuple(np.unique(label_map).tolist()) for label_map in arrays[1])
        return CachedEmbedding(None, *map(ArrayFile.open, files), present)  # type: ignore[arg-type]

    return make


Make = Callable[..., CachedEmbedding]


def test_shapes_and_types(entry: Make) -> None:
    embedding, labels = CachedBatches([entry(5), entry(4)], LABELS).draw(np.random.default_rng(0), 6)
    assert embedding.shape == (6, 2, 3, 3) and embedding.dtype == torch.float32
    assert labels.shape == (6, 12, 12)


def test_an_embedding_comes_with_its_own_labels(entry: Make) -> None:
    batches = CachedBatches([entry(50, 7), entry(40)], LABELS)
    embedding, labels = batches.draw(np.random.default_rng(0), 200)
    rare = (labels == 2).flatten(1).any(1)
    assert rare.any()
    assert (embedding[rare] == 7).all()


def test_labels_of_sixteen_bits_reach_the_loss(entry: Make) -> None:
    many = LabelSet({"background": 0, **{f"label {value}": value for value in range(1, 301)}})
    _, labels = CachedBatches([entry(3, 1, np.uint16, 300)], many).draw(np.random.default_rng(0), 8)
    assert set(labels.unique().tolist()) == {1, 300}
    logits = torch.zeros(8, many.outputs, 12, 12)
    assert torch.isfinite(SegmentationLoss(many)(logits, labels))


def test_the_same_generator_draws_the_same_batch(entry: Make) -> None:
    batches = CachedBatches([entry(50, 7)], LABELS)
    first, second = (batches.draw(np.random.default_rng(3), 8)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, batches.draw(np.random.default_rng(4), 8)[0])


def test_a_class_in_one_of_a_hundred_slices_is_drawn_often(entry: Make) -> None:
    batches = CachedBatches([entry(100, 42)], LABELS)
    _, labels = batches.draw(np.random.default_rng(0), 300)
    share = (labels == 2).flatten(1).any(1).float().mean()
    assert 0.25 < share < 0.45


def test_parts_are_the_same_place_of_embedding_and_labels() -> None:
    places = np.arange(16 * 16).reshape(16, 16)
    embedding, labels = places[None], places.repeat(4, 0).repeat(4, 1)
    corners = set()
    for seed in range(200):
        part, map_ = cut(np.random.default_rng(seed), 0.5, embedding, labels)
        assert part.shape == (1, 8, 8) and map_.shape == (32, 32)
        assert np.array_equal(part[0].repeat(4, 0).repeat(4, 1), map_)
        corners.add(int(part[0, 0, 0]))
    assert {0, 8, 8 * 16, 8 * 16 + 8} <= corners  # every corner of the input is seen


@pytest.mark.parametrize("spot", [(0, 0), (63, 63), (5, 60), (30, 31)])
def test_a_part_drawn_for_a_class_shows_it(spot: tuple[int, int]) -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[spot] = 1
    for seed in range(50):
        _, part = cut(np.random.default_rng(seed), 0.25, np.zeros((1, 16, 16)), labels, (1,))
        assert part.sum() == 1


def test_whole_inputs_are_left_as_they_are() -> None:
    embedding, labels = np.random.default_rng(0).random((2, 8, 8)), np.zeros((32, 32))
    part, map_ = cut(np.random.default_rng(0), 1.0, embedding, labels, (1,))
    assert part is embedding and map_ is labels


def test_batches_of_parts(entry: Make) -> None:
    batches = CachedBatches([entry(20, 7)], LABELS, crop=0.5)
    embeddings, labels = batches.draw(np.random.default_rng(0), 6)
    assert embeddings.shape == (6, 2, 2, 2)
    assert labels.shape == (6, 8, 8)
