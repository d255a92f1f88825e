"""Dice and cross entropy over classes or regions, blind to voxels without an annotation."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from autosam_net.data.labels import LabelSet


class SegmentationLoss(nn.Module):
    """Soft Dice (over the batch, without background) plus cross entropy, in equal parts, as in nnU-Net.

    Classes: softmax and categorical cross entropy. Regions: a sigmoid and binary cross entropy each.
    """

    members: torch.Tensor

    def __init__(self, labels: LabelSet) -> None:
        super().__init__()
        from monai.losses import DiceLoss

        self.ignore = labels.ignore
        self.exclusive = not labels.has_regions
        self.dice = DiceLoss(batch=True, smooth_nr=1e-5, smooth_dr=1e-5)
        self.register_buffer("members", target_table(labels))

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of logits `(B, outputs, S, S)` against label values `(B, S, S)`, a scalar."""
        targets = self.members[labels.long()].movedim(-1, 1)  # (B, outputs, S, S)
        known = torch.ones_like(labels, dtype=torch.float) if self.ignore is None else (labels != self.ignore).float()
        return self.compare(logits, targets, known)

    def compare(self, logits: torch.Tensor, targets: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Return the loss of logits against targets, both `(B, outputs, S, S)`, a scalar.

        Args:
            known: `(B, S, S)`, 1 for the pixels that count, else 0.
        """
        logits = logits.float()
        if self.exclusive:
            entropy = functional.cross_entropy(logits, targets, reduction="none")
            probabilities, foreground = torch.softmax(logits, 1)[:, 1:], targets[:, 1:]
        else:
            entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
            probabilities, foreground = torch.sigmoid(logits), targets
        mask = known[:, None]
        return self.dice(probabilities * mask, foreground * mask) + (entropy * known).sum() / known.sum().clamp(min=1)


def target_table(labels: LabelSet) -> torch.Tensor:
    """Return the table `(values, outputs)` that turns a label value into the target of each output, 0 or 1."""
    table = torch.zeros(max(labels.allowed_values) + 1, labels.outputs)
    shift = 0 if labels.has_regions else 1
    if shift:
        table[0, 0] = 1.0
    for index, values in enumerate(labels.targets.values()):
        table[list(values), index + shift] = 1.0
    return table


def foreground_dice(logits: torch.Tensor, labels: torch.Tensor, table: torch.Tensor, exclusive: bool) -> float:
    """Return the mean Dice of the targets present in a batch, from hard predictions; 0 where none is present."""
    targets = table[labels.long()].movedim(-1, 1) > 0.5
    if exclusive:
        hard = functional.one_hot(logits.argmax(1), logits.shape[1]).movedim(-1, 1).bool()[:, 1:]
        targets = targets[:, 1:]
    else:
        hard = logits > 0
    overlap = (hard & targets).sum((0, 2, 3))
    sizes = hard.sum((0, 2, 3)) + targets.sum((0, 2, 3))
    present = targets.any(dim=3).any(dim=2).any(dim=0)
    return float((2 * overlap[present] / sizes[present]).mean()) if present.any() else 0.0
