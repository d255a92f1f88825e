"""From prompts to label maps, with a decoder that fills the boxes it is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autosam_net.data.case import PreprocessedCase
from autosam_net.data.labels import LabelSet
from autosam_net.data.plan import PLAIN
from autosam_net.embedding.cache import CachedEmbedding
from autosam_net.embedding.embed import EncoderSource, embed_dataset, preprocessed_cases
from autosam_net.imageio import read_label
from autosam_net.inference.export import label_map
from autosam_net.inference.prompts import PromptOptions
from autosam_net.inference.zero_shot import cut_overlaps, prompted_logits, prompted_slices
from autosam_net.preprocessing.preprocess import cases_folder, load_case
from tests.support import Prepared

BOX = PromptOptions("box")


def fill(embedding: torch.Tensor, boxes: torch.Tensor | None = None, points: torch.Tensor | None = None):
    """Return logits of 5 inside each box `(K, 4)`, or within 3 pixels of a point `(K, N, 2)`, and -5 elsewhere."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    if boxes is not None:
        inside = [(x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3]) for box in boxes]
    else:
        near = [[(x - px) ** 2 + (y - py) ** 2 < 9 for px, py in own] for own in points]
        inside = [torch.stack(own).any(0) for own in near]
    return torch.stack(inside) * 10.0 - 5.0


@pytest.fixture
def case(prepared: Prepared) -> PreprocessedCase:
    name = preprocessed_cases(prepared.dataset, prepared.folders)[0]
    return load_case(cases_folder(prepared.dataset, prepared.folders) / name)


@pytest.fixture
def entry(prepared: Prepared, case: PreprocessedCase) -> CachedEmbedding:
    return embed_dataset(prepared.dataset, prepared.plan, prepared.folders, [case.properties.name])[0]


def segment(
    prepared: Prepared, case: PreprocessedCase, entry: CachedEmbedding, labels: LabelSet, options: PromptOptions = BOX
) -> np.ndarray:
    source = EncoderSource(prepared.plan.encoding, "cpu")
    return label_map(prompted_slices(case, {PLAIN: entry}, fill, labels, source, options), case.properties, labels)


def reference_of(prepared: Prepared, case: PreprocessedCase) -> np.ndarray:
    return read_label(prepared.dataset.folder / "labelsTr" / f"{case.properties.name}.nii.gz").array[0]


def test_boxes_come_back_around_their_classes_on_the_raw_grid(
    prepared: Prepared, case: PreprocessedCase, entry: CachedEmbedding
) -> None:
    reference = reference_of(prepared, case)
    found = segment(prepared, case, entry, prepared.plan.label_set)
    assert found.shape == reference.shape
    assert len(entry.labels.row(0)) < case.properties.shape[1], "the slices are tiled"
    assert (found > 0)[reference > 0].mean() > 0.98
    for value in (1, 2, 3):
        planes = (reference == value).any((1, 2))
        assert (found[reference == value] == value).mean() > 0.4  # the ring loses what the box inside it covers
        assert not (found[~planes] == value).any()
    assert (found[reference == 3] == 3).mean() > 0.95


def test_regions_are_outputs_of_their_own(prepared: Prepared, case: PreprocessedCase, entry: CachedEmbedding) -> None:
    regions = LabelSet({"background": 0, "whole": (1, 2, 3), "left": (2, 3)}, (1, 2))
    source = EncoderSource(prepared.plan.encoding, "cpu")
    first = next(prompted_slices(case, {PLAIN: entry}, fill, regions, source, BOX))
    assert first.shape == (2, *case.properties.cropped_shape[1:])
    assert ((first[1] > 0.5) <= (first[0] > 0.4)).all(), "they may overlap"
    assert (segment(prepared, case, entry, regions)[reference_of(prepared, case) >= 2] == 2).mean() > 0.95


def test_points_are_drawn_anew_by_another_seed_only(
    prepared: Prepared, case: PreprocessedCase, entry: CachedEmbedding
) -> None:
    first, again, other = (
        segment(prepared, case, entry, prepared.plan.label_set, PromptOptions("point", 3, seed=seed))
        for seed in (0, 0, 1)
    )
    assert (first > 0).any()
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_is_not_there_gets_no_prompt_and_no_mask() -> None:
    masks = np.zeros((3, 64, 64), bool)
    masks[1, 10:20, 30:50] = True
    logits = prompted_logits(fill, torch.zeros(32, 16, 16), masks, BOX, np.random.default_rng(0))
    assert torch.isneginf(logits[[0, 2]]).all()
    assert np.array_equal(logits[1].numpy() > 0, masks[1])
    empty = prompted_logits(fill, torch.zeros(32, 16, 16), masks[:1], BOX, np.random.default_rng(0))
    assert torch.isneginf(empty).all()


def test_the_smaller_of_two_masks_lies_on_top() -> None:
    logits = torch.full((2, 8, 8), -1.0)
    logits[0, 1:7, 1:7] = 9.0
    logits[1, 3:5, 3:5] = 1.0
    before = logits.clone()
    cut = cut_overlaps(logits)
    assert torch.equal(logits, before)
    assert torch.equal(cut[1], logits[1])
    assert torch.isneginf(cut[0, 3:5, 3:5]).all()
    assert (cut[0] > 0).sum() == 36 - 4
