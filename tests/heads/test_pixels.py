from __future__ import annotations

import pytest
import torch

from autosam_net.data.encoding import CELL
from autosam_net.heads.head import HeadShape, build_head
from autosam_net.heads.pixels import fold_pixels, unfold_pixels


def test_folding_loses_nothing_where_a_cell_has_as_many_pixels() -> None:
    images = torch.rand(2, 3, 32, 32)
    folded = fold_pixels(images, 8)
    assert folded.shape == (2, 3 * CELL**2, 8, 8)
    assert torch.equal(unfold_pixels(folded), images)


def test_a_folded_pixel_lies_in_the_cell_that_covers_it() -> None:
    images = torch.zeros(1, 1, 32, 32)
    images[0, 0, 9, 30] = 1.0
    assert fold_pixels(images, 8)[0].sum(0).nonzero().tolist() == [[9 // CELL, 30 // CELL]]


def test_pixels_finer_than_a_cell_holds_are_averaged() -> None:
    images = torch.rand(1, 1, 64, 64)
    unfolded = unfold_pixels(fold_pixels(images, 4))
    assert unfolded.shape == (1, 1, 16, 16)
    torch.testing.assert_close(unfolded[0, 0, 0, 0], images[0, 0, :4, :4].mean())


@pytest.mark.parametrize("name", ["linear"])
def test_a_head_that_does_not_ask_for_pixels_never_sees_them(name: str) -> None:
    torch.manual_seed(0)
    plain = build_head(name, HeadShape(2, 256, 4, 32), {}, {}).eval()
    beside = build_head(name, HeadShape(2, 256, 4, 32, pixels=1), {}, {}).eval()
    beside.load_state_dict(plain.state_dict())
    embedding = torch.randn(1, 256 + CELL**2, 8, 8)
    assert torch.equal(beside(embedding), plain(embedding[:, :256]))
