"""Contrastive learning: the contracting path of a head learns to tell slices apart, without labels.

SimCLR (Chen et al., ICML 2020): two views of a slice shall have features that resemble each other more than those of
all other slices of the batch. It is how U-Nets trained from scratch are pretrained where they are compared with
adapted foundation models (Hu et al., AutoSAM, arXiv 2306.13731).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from autosam_net.errors import UsageError
from autosam_net.training.slices import UnlabelledSlices

TEMPERATURE = 0.1  # the published optimum for batches that are not huge
FEATURES = 128  # that are compared, as published
SHOWN = 0.75  # of a view's side; the two views of a slice show different parts
CELL, SMALLEST = 16, 32  # pixels: what the sides of parts are multiples of (a U-Net halves four times), and at least
PATH = "down"  # the list of modules, one after the other, that a head is asked for


class ContrastiveModel(nn.Module):
    """The contracting path of a head, the mean over its pixels, and a perceptron: (B, 3, S, S) -> (B, 128)."""

    def __init__(self, head: nn.Module, name: str) -> None:
        """Take the path of a head.

        Raises:
            UsageError: the head has none.
        """
        super().__init__()
        path = getattr(head, PATH, None)
        if not isinstance(path, nn.ModuleList):
            raise UsageError(
                f"the head {name} has no contracting path that could be pretrained, as unet has. Leave -c out to "
                "pretrain the encoder."
            )
        self.down = path
        with torch.no_grad():
            width = self._pooled(torch.zeros(1, 3, SMALLEST, SMALLEST)).shape[1]
        self.project = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, FEATURES))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.project(self._pooled(images))
        return features

    def _pooled(self, images: torch.Tensor) -> torch.Tensor:
        for block in self.down:
            images = block(images)
        return images.mean((2, 3))

    def path_weights(self) -> dict[str, torch.Tensor]:
        """Return the tensors of the path, under the head's names."""
        return {f"{PATH}.{name}": tensor for name, tensor in self.down.state_dict().items()}


def pair_loss(features: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return NT-Xent, a scalar, and the share of views whose most similar other view is that of the same slice.

    Args:
        features: `(2 N, F)`, the first views of N slices, then their second ones in the same order.
    """
    directions = functional.normalize(features.float(), dim=1)
    similarity = directions @ directions.T / TEMPERATURE
    similarity = similarity.masked_fill(torch.eye(len(features), dtype=torch.bool, device=features.device), -torch.inf)
    other = torch.arange(len(features), device=features.device).roll(len(features) // 2)
    found = (similarity.argmax(1) == other).float().mean()
    return functional.cross_entropy(similarity, other), found.item()


def draw_pairs(slices: UnlabelledSlices, seed: int, size: int, iteration: int) -> torch.Tensor:
    """Return parts of two views of each of `size` slices, `(2 size, 3, s, s)`; see `UnlabelledSlices.draw_pairs`."""
    rng = np.random.default_rng([seed, iteration])
    views = slices.draw_pairs(rng, size)
    whole = views.shape[-1]
    side = min(whole, max(SMALLEST, int(SHOWN * whole) // CELL * CELL))
    corners = rng.integers(whole - side + 1, size=(len(views), 2)).tolist()
    parts = [view[:, y : y + side, x : x + side] for view, (y, x) in zip(views, corners, strict=True)]
    return torch.stack(parts)
