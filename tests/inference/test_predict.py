"""Probabilities of slices: ensembles, tiles and poses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from autosam_net.data.case import CaseProperties, PreprocessedCase
from autosam_net.data.encoding import PLAIN, POSES
from autosam_net.data.labels import LabelSet
from autosam_net.data.volume import Geometry
from autosam_net.embedding import source as source_module
from autosam_net.embedding.embed import embed_dataset, preprocessed_cases
from autosam_net.embedding.source import EncoderSource
from autosam_net.inference.predict import (
    blend,
    blending_weights,
    probabilities_of_each,
    resized,
    slice_probabilities,
)
from autosam_net.preprocessing.preprocess import cases_folder, load_case
from autosam_net.preprocessing.slices import tile_grid
from tests.support import Prepared


class Constant(nn.Module):
    """A head that gives the same logits everywhere."""

    def __init__(self, logits: list[float], size: int = 64) -> None:
        super().__init__()
        self.logits, self.size = torch.tensor(logits), size

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        return self.logits.view(1, -1, 1, 1).expand(len(embedding), -1, self.size, self.size)


class Position(nn.Module):
    """A head of two classes whose logit follows the embedding, so that it depends on what it sees."""

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        logits = nn.functional.interpolate(embedding[:, :1], (64, 64), mode="bilinear")
        return torch.cat([logits, -logits], 1)


@pytest.fixture
def source(prepared: Prepared) -> EncoderSource:
    return EncoderSource(prepared.plan.encoding, "cpu")


@pytest.fixture
def case(prepared: Prepared) -> PreprocessedCase:
    name = preprocessed_cases(prepared.dataset, prepared.folders)[0]
    return load_case(cases_folder(prepared.dataset, prepared.folders) / name)


def test_an_ensemble_is_the_mean_of_its_members_probabilities(
    prepared: Prepared, case: PreprocessedCase, source: EncoderSource
) -> None:
    heads = [Constant([0.0, 0.0, 0.0, 5.0]), Constant([2.0, 0.0, 0.0, 0.0])]
    slices = list(slice_probabilities(case, heads, prepared.plan.label_set, source))
    assert len(slices) == case.properties.shape[0]
    expected = torch.stack([torch.softmax(head.logits, 0) for head in heads]).mean(0).numpy()
    for probabilities in slices:
        assert probabilities.shape == (4, *case.properties.cropped_shape[1:])
        np.testing.assert_allclose(
            probabilities, np.broadcast_to(expected[:, None, None], probabilities.shape), atol=1e-5
        )


def test_regions_are_independent(case: PreprocessedCase, source: EncoderSource) -> None:
    regions = LabelSet({"background": 0, "whole": (1, 2), "core": (2,)}, (1, 2))
    (first, *_) = slice_probabilities(case, [Constant([3.0, 3.0])], regions, source)
    np.testing.assert_allclose(first, 1 / (1 + np.exp(-3.0)), rtol=1e-4)


def test_cached_and_fresh_embeddings_predict_the_same(
    prepared: Prepared, case: PreprocessedCase, source: EncoderSource
) -> None:
    labels = LabelSet({"background": 0, "a": 1})
    (entry,) = embed_dataset(prepared.dataset, prepared.plan, prepared.folders, [case.properties.name])
    fresh, cached = (
        list(slice_probabilities(case, [Position()], labels, source, known)) for known in (None, {PLAIN: entry})
    )
    np.testing.assert_allclose(np.stack(fresh), np.stack(cached), atol=5e-3)


@pytest.mark.parametrize("pose", POSES)
def test_what_is_seen_in_a_pose_comes_back_to_its_place(
    case: PreprocessedCase, source: EncoderSource, pose: str
) -> None:
    labels = LabelSet({"background": 0, "a": 1})
    plain, posed = (
        np.stack(list(slice_probabilities(case, [Position()], labels, source, poses=poses))) for poses in ((), (pose,))
    )
    correlation = np.corrcoef(plain[:, 1].ravel(), posed[:, 1].ravel())[0, 1]
    assert 0.6 < correlation < 1 - 1e-6


def test_the_encoder_runs_once_for_any_number_of_heads(
    prepared: Prepared, case: PreprocessedCase, source: EncoderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    encoder = source.encoder
    plain_forward = encoder.forward
    monkeypatch.setattr(encoder, "forward", lambda images: passes.append(len(images)) or plain_forward(images))
    for heads in ([Constant([0.0] * 4)], [Constant([0.0] * 4)] * 5):
        passes.clear()
        list(slice_probabilities(case, heads, prepared.plan.label_set, source))
        assert sum(passes) == case.properties.shape[0] * len(
            tile_grid(case.properties.shape[1:], source.encoding).origins
        )


def test_heads_side_by_side_share_the_encoder_and_have_the_ensemble_as_their_mean(
    prepared: Prepared, case: PreprocessedCase, source: EncoderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, heads = LabelSet({"background": 0, "a": 1}), [Position(), Constant([0.0, 1.0])]
    passes = []
    plain_forward = source.encoder.forward
    monkeypatch.setattr(source.encoder, "forward", lambda images: passes.append(len(images)) or plain_forward(images))
    together = list(slice_probabilities(case, heads, labels, source, poses=("flip_x", "turn_90")))
    for_the_ensemble = passes.copy()
    passes.clear()
    apart = list(probabilities_of_each(case, heads, labels, source, poses=("flip_x", "turn_90")))
    assert passes == for_the_ensemble
    means = [resized(np.mean(each, axis=0), case.properties.cropped_shape[1:]) for each in apart]
    np.testing.assert_allclose(np.stack(means), np.stack(together), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_heads_side_by_side_share_tiles_that_do_not_fit_in_one_batch(
    case: PreprocessedCase, source: EncoderSource, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setitem(source_module.BATCH, "cpu", batch)
    image = np.random.default_rng(0).random((1, 3, 100, 80), np.float32)
    properties = replace(case.properties, shape=(3, 100, 80))
    passes = []
    plain_forward = source.encoder.forward
    monkeypatch.setattr(source.encoder, "forward", lambda images: passes.append(len(images)) or plain_forward(images))
    heads, labels = [Position(), Position(), Constant([0.0, 1.0])], LabelSet({"background": 0, "a": 1})
    slices = list(probabilities_of_each(PreprocessedCase(image, None, properties), heads, labels, source))
    assert len(slices) == 3
    assert sum(passes) == 3 * len(tile_grid((100, 80), source.encoding).origins) == 12


def test_slices_are_encoded_as_they_are_asked_for(
    prepared: Prepared, case: PreprocessedCase, source: EncoderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    plain_forward = source.encoder.forward
    monkeypatch.setattr(source.encoder, "forward", lambda images: passes.append(1) or plain_forward(images))
    slices = slice_probabilities(case, [Constant([0.0] * 4)], prepared.plan.label_set, source)
    next(slices)
    first = len(passes)
    assert len(list(slices)) == case.properties.shape[0] - 1
    assert first < len(passes)


def test_overlapping_tiles_blend_to_a_partition_of_one(prepared: Prepared) -> None:
    grid = tile_grid((100, 80), replace(prepared.plan.encoding, overlap=0.5))
    tiles = [torch.full((2, 64, 64), 0.5) for _ in grid.origins]
    blended = blend(tiles, grid, blending_weights(64))
    assert blended.shape == (2, 100, 80)
    torch.testing.assert_close(blended, torch.full((2, 100, 80), 0.5))


def test_a_slice_smaller_than_the_input_comes_back_without_its_border(prepared: Prepared) -> None:
    encoding = prepared.plan.encoding
    image = np.zeros((1, 2, 30, 50), np.float32)
    properties = CaseProperties(
        "small", (2, 30, 50), Geometry((1.0, 1.0, 1.0)), 0, ((0, 2), (0, 30), (0, 50)), (2, 30, 50)
    )
    case = PreprocessedCase(image, None, properties)
    slices = list(
        slice_probabilities(
            case, [Constant([0.0, 1.0])], LabelSet({"background": 0, "a": 1}), EncoderSource(encoding, "cpu")
        )
    )
    assert [probabilities.shape for probabilities in slices] == [(2, 30, 50)] * 2
