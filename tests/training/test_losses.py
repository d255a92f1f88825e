"""The loss for classes and regions, and voxels that count for nothing."""

from __future__ import annotations

import pytest
import torch

from autosam_net.data.labels import LabelSet
from autosam_net.training.losses import SegmentationLoss, foreground_dice, target_table

CLASSES = LabelSet({"background": 0, "b": 2, "a": 1})
REGIONS = LabelSet({"background": 0, "whole": (1, 2), "core": (2,)}, (1, 2))
IGNORING = LabelSet({"background": 0, "a": 1, "ignore": 2})


def labels_of(label_set: LabelSet) -> torch.Tensor:
    return torch.randint(0, max(label_set.allowed_values) + 1, (2, 8, 8), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("label_set", [CLASSES, REGIONS, IGNORING])
def test_the_right_answer_costs_nothing_and_a_wrong_one_much(label_set: LabelSet) -> None:
    labels = labels_of(label_set)
    right = (target_table(label_set)[labels].movedim(-1, 1) - 0.5) * 60
    loss = SegmentationLoss(label_set)
    assert loss(right, labels) < 1e-3
    assert loss(-right, labels) > 5


def test_targets_follow_the_declared_order() -> None:
    assert target_table(CLASSES).tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert target_table(REGIONS).tolist() == [[0, 0], [1, 0], [1, 1]]


def test_ignored_voxels_get_no_gradient() -> None:
    labels = labels_of(IGNORING)
    logits = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    SegmentationLoss(IGNORING)(logits, labels).backward()
    assert logits.grad is not None
    ignored = (labels == 2)[:, None].expand_as(logits)
    assert not logits.grad[ignored].any()
    assert logits.grad[~ignored].all()


def test_a_batch_without_annotation_costs_nothing_but_a_finite_number() -> None:
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    assert torch.isfinite(SegmentationLoss(IGNORING)(logits, torch.full((1, 4, 4), 2)))


def test_dice_of_a_batch_counts_the_targets_present() -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[0, :2] = 1
    table = target_table(CLASSES)
    logits = torch.nn.functional.one_hot(torch.full((1, 4, 4), 2), 3).movedim(-1, 1).float()  # class "a" everywhere
    assert foreground_dice(logits, labels, table, exclusive=True) == pytest.approx(2 * 8 / (16 + 8))
    assert foreground_dice(logits, torch.zeros_like(labels), table, exclusive=True) == 0.0
