"""From prompts to label maps, with a head that fills the boxes it is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autosam_net.data.case import PreprocessedCase
from autosam_net.data.encoding import PLAIN
from autosam_net.data.labels import LabelSet
from autosam_net.data.prompts import Prompt, PromptOptions
from autosam_net.embedding.cache import CachedEmbedding
from autosam_net.embedding.embed import embed_poses, preprocessed_cases
from autosam_net.embedding.source import EncoderSource
from autosam_net.heads.prompted import ABSENT
from autosam_net.imageio import read_label
from autosam_net.inference.export import label_map
from autosam_net.inference.predict import slice_probabilities
from autosam_net.inference.zero_shot import Unadapted, cut_overlaps
from autosam_net.preprocessing.preprocess import cases_folder, load_case
from autosam_net.preprocessing.prompts import draw_prompts
from tests.support import Prepared

BOX = PromptOptions("box")
POSES = ("flip_x", "flip_y", "turn_90", "turn_180", "turn_270")


class Filling(nn.Module):
    """Gives logits of 5 inside each box, or within 3 pixels of a point, -5 elsewhere, and 0 to the background."""

    def __init__(self, regions: bool) -> None:
        super().__init__()
        self.regions = regions

    def forward(self, embedding: Tensor, prompts: Tensor) -> Tensor:
        y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
        logits = torch.full((*prompts.shape[:2], 64, 64), ABSENT)
        for row, classes in enumerate(prompts[:, :, 0]):
            for index, tokens in enumerate(classes):
                points = {int(mark): (px, py) for px, py, mark in tokens.tolist()}
                if 2 in points:
                    (left, top), (right, bottom) = points[2], points[3]
                    inside = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
                elif 1 in points:
                    inside = sum((x - px) ** 2 + (y - py) ** 2 < 9 for px, py, mark in tokens.tolist() if mark == 1) > 0
                else:
                    continue
                logits[row, index] = inside * 10.0 - 5.0
        return logits if self.regions else torch.cat([torch.zeros_like(logits[:, :1]), logits], 1)


@pytest.fixture
def case(prepared: Prepared) -> PreprocessedCase:
    name = preprocessed_cases(prepared.dataset, prepared.folders)[0]
    return load_case(cases_folder(prepared.dataset, prepared.folders) / name)


@pytest.fixture
def entry(prepared: Prepared, case: PreprocessedCase) -> dict[str, CachedEmbedding]:
    names, poses = [case.properties.name], (PLAIN, *POSES)
    return embed_poses(prepared.dataset, prepared.plan, prepared.folders, names, poses, "cpu")[0]


def segment(
    prepared: Prepared,
    case: PreprocessedCase,
    entry: dict[str, CachedEmbedding],
    labels: LabelSet,
    options: PromptOptions = BOX,
    poses: Sequence[str] = (),
    prompts: Sequence[Prompt] | None = None,
) -> np.ndarray:
    source = EncoderSource(prepared.plan.encoding, "cpu")
    head = Unadapted(Filling(labels.has_regions), labels.has_regions)
    prompts = draw_prompts(case, labels, options) if prompts is None else prompts
    slices = slice_probabilities(case, [head], labels, source, entry, poses, prompts)
    return label_map(slices, case.properties, labels)


def reference_of(prepared: Prepared, case: PreprocessedCase) -> np.ndarray:
    return read_label(prepared.dataset.folder / "labelsTr" / f"{case.properties.name}.nii.gz").array[0]


def test_boxes_come_back_around_their_classes_on_the_raw_grid(
    prepared: Prepared, case: PreprocessedCase, entry: dict[str, CachedEmbedding]
) -> None:
    reference = reference_of(prepared, case)
    found = segment(prepared, case, entry, prepared.plan.label_set)
    assert found.shape == reference.shape
    assert len(entry[PLAIN].labels.row(0)) < case.properties.shape[1], "the slices are tiled"
    assert (found > 0)[reference > 0].mean() > 0.98
    for value in (1, 2, 3):
        planes = (reference == value).any((1, 2))
        assert (found[reference == value] == value).mean() > 0.4  # the ring loses what the box inside it covers
        assert not (found[~planes] == value).any()
    assert (found[reference == 3] == 3).mean() > 0.95


def test_prompts_are_put_in_the_poses_of_their_slices(
    prepared: Prepared, case: PreprocessedCase, entry: dict[str, CachedEmbedding]
) -> None:
    plain = segment(prepared, case, entry, prepared.plan.label_set)
    posed = segment(prepared, case, entry, prepared.plan.label_set, poses=POSES)
    assert (plain == posed).mean() > 0.999  # the same boxes are filled in every pose


def test_what_is_not_prompted_for_is_not_there(
    prepared: Prepared, case: PreprocessedCase, entry: dict[str, CachedEmbedding]
) -> None:
    labels = prepared.plan.label_set
    assert not segment(prepared, case, entry, labels, prompts=[]).any()
    (one,) = [prompt for prompt in draw_prompts(case, labels, BOX) if (prompt.slice, prompt.label) == (1, "LV")][:1]
    found = segment(prepared, case, entry, labels, prompts=[one])
    assert set(np.unique(found[1])) == {0, *labels.targets["LV"]} and not found[[0, 2]].any()


def test_regions_are_outputs_of_their_own(
    prepared: Prepared, case: PreprocessedCase, entry: dict[str, CachedEmbedding]
) -> None:
    regions = LabelSet({"background": 0, "whole": (1, 2, 3), "left": (2, 3)}, (1, 2))
    found = segment(prepared, case, entry, regions)
    assert (found[reference_of(prepared, case) >= 2] == 2).mean() > 0.95


def test_points_are_drawn_anew_by_another_seed_only(
    prepared: Prepared, case: PreprocessedCase, entry: dict[str, CachedEmbedding]
) -> None:
    first, again, other = (
        segment(prepared, case, entry, prepared.plan.label_set, PromptOptions("point", 3, seed=seed))
        for seed in (0, 0, 1)
    )
    assert (first > 0).any()
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_smaller_of_two_masks_lies_on_top() -> None:
    logits = torch.full((2, 8, 8), -1.0)
    logits[0, 1:7, 1:7] = 9.0
    logits[1, 3:5, 3:5] = 1.0
    before = logits.clone()
    cut = cut_overlaps(logits)
    assert torch.equal(logits, before)
    assert torch.equal(cut[1], logits[1])
    assert (cut[0, 3:5, 3:5] == ABSENT).all()
    assert (cut[0] > 0).sum() == 36 - 4
