"""What is hidden of an image, and what the error counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from autosam_net.training.masked import MaskedModel, draw_hidden, hidden_error


@pytest.mark.parametrize(("size", "stride", "side"), [(256, 4, 32), (1024, 16, 128), (64, 16, 16), (192, 16, 32)])
def test_six_tenths_are_hidden_in_squares_of_whole_cells(size: int, stride: int, side: int) -> None:
    hidden = draw_hidden(np.random.default_rng(0), 3, size, stride)
    assert hidden.shape == (3, 1, size, size) and hidden.dtype == torch.bool
    assert hidden.float().mean((1, 2, 3)) == pytest.approx(0.6, abs=0.04)
    squares = hidden.unfold(2, side, side).unfold(3, side, side).flatten(4).float().mean(4)
    assert set(squares.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(hidden[0], hidden[1]), "each image has squares of its own"
    assert torch.equal(hidden, draw_hidden(np.random.default_rng(0), 3, size, stride))


def test_the_error_is_that_of_hidden_pixels() -> None:
    images, hidden = torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    hidden[..., :2] = True
    drawn = images.clone()
    drawn[..., :2], drawn[..., 2:] = 0.5, 9.0
    assert hidden_error(drawn, images, hidden) == pytest.approx(0.5)


class Shrunk(nn.Module):
    stride, channels = 4, 3

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen = images
        return nn.functional.avg_pool2d(images, self.stride)


def test_the_encoder_sees_one_colour_where_pixels_are_hidden() -> None:
    model = MaskedModel(Shrunk(), channels=1)
    hidden = draw_hidden(np.random.default_rng(0), 2, 64, 4)
    images = torch.rand(2, 3, 64, 64)
    assert model(images, hidden).shape == (2, 1, 64, 64)
    everywhere = hidden.expand_as(images)
    assert (model.encoder.seen[everywhere] == 0.5).all()
    assert torch.equal(model.encoder.seen[~everywhere], images[~everywhere])
