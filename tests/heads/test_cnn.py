from __future__ import annotations

import pytest
import torch

from autosam_net.errors import PlanError
from autosam_net.heads.head import HeadShape, build_head

SHAPE = HeadShape(4, 256, 4, 32)


def test_it_is_small() -> None:
    head = build_head("cnn", SHAPE, {}, {})
    assert sum(parameter.numel() for parameter in head.parameters()) < 200_000


def test_the_width_is_a_setting() -> None:
    assert build_head("cnn", SHAPE, {"width": 16}, {}).classify.in_channels == 8


@pytest.mark.parametrize("width", [0, -16, 24, 16.5])
def test_widths_that_do_not_fit_are_refused(width: float) -> None:
    with pytest.raises(PlanError, match=f"head 'cnn': width is {width:g}, expected a multiple of 16"):
        build_head("cnn", SHAPE, {"width": width}, {})


def test_dropout_acts_in_training_only() -> None:
    head = build_head("cnn", SHAPE, {"dropout": 0.5}, {})
    embedding = torch.randn(1, 256, 8, 8)
    assert not torch.equal(head.train()(embedding), head(embedding))
    assert torch.equal(head.eval()(embedding), head(embedding))


def test_context_lets_a_pixel_see_the_whole_input() -> None:
    torch.manual_seed(0)
    embedding = torch.randn(1, 256, 64, 64)
    changed = embedding.clone()
    changed[:, :, -4:, -4:] += 5  # the corner opposite to the pixel looked at
    reached = {}
    for context in (0.0, 1.0):
        head = build_head("cnn", HeadShape(2, 256, 4, 256), {"context": context}, {}).eval()
        for layer in head.modules():  # group norms see everything; here only the convolutions shall speak
            if isinstance(layer, torch.nn.GroupNorm):
                layer.forward = lambda features: features
        reached[context] = (head(changed) - head(embedding))[0, :, 127, 127].abs().max().item()
    assert reached[0.0] == 0.0
    assert reached[1.0] > 0.0
