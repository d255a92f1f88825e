from __future__ import annotations

import pytest
import torch

from autosam_net.data.encoding import CELL
from autosam_net.errors import PlanError
from autosam_net.heads.cnn import DetailPath, JointConv2d, PixelwiseGELU
from autosam_net.heads.head import HeadShape, build_head

SHAPE = HeadShape(4, 256, 4, 32)
WITH_PIXELS = HeadShape(4, 256, 4, 64, pixels=1)
FOLDED = 256 + CELL**2


def test_it_is_small() -> None:
    head = build_head("cnn", WITH_PIXELS, {}, {})
    assert sum(parameter.numel() for parameter in head.parameters()) < 350_000


def test_the_widths_are_settings() -> None:
    assert build_head("cnn", SHAPE, {"width": 16}, {}).classify.in_channels == 8
    assert build_head("cnn", WITH_PIXELS, {"detail": 6}, {}).classify.in_channels == 6


@pytest.mark.parametrize(("name", "value"), [("width", 0), ("width", -16), ("width", 16.5), ("detail", -2)])
def test_widths_that_do_not_fit_are_refused(name: str, value: float) -> None:
    with pytest.raises(PlanError, match=f"head 'cnn': {name} is {value:g}, expected an even number of channels"):
        build_head("cnn", SHAPE, {name: value}, {})


def test_the_depth_is_a_setting() -> None:
    few, many = (build_head("cnn", SHAPE, {"depth": depth}, {}) for depth in (0, 2))
    assert len(few.coarse) == 1
    assert len(many.coarse) == 3
    embedding = torch.randn(1, 64, 8, 8)
    block = many.coarse[2]
    torch.testing.assert_close(block(embedding), embedding + block.layers(embedding))


@pytest.mark.parametrize("depth", [-1, 1.5])
def test_a_depth_that_is_no_number_of_blocks_is_refused(depth: float) -> None:
    with pytest.raises(PlanError, match=f"head 'cnn': depth is {depth:g}, expected a whole number of blocks"):
        build_head("cnn", SHAPE, {"depth": depth}, {})


@pytest.mark.parametrize("shape", [SHAPE, HeadShape(4, 256, 4, 64, pixels=0)])
def test_without_pixels_there_is_no_detail_path(shape: HeadShape) -> None:
    assert build_head("cnn", shape, {}, {}).detail is None


def test_detail_can_be_left_out_where_there_are_pixels() -> None:
    head = build_head("cnn", WITH_PIXELS, {"detail": 0}, {}).eval()
    assert head.detail is None
    assert head(torch.randn(1, FOLDED, 16, 16)).shape == (1, 4, 64, 64)


def test_the_pixels_reach_the_logits_only_by_the_detail_path() -> None:
    torch.manual_seed(0)
    embedding = torch.randn(1, FOLDED, 16, 16)
    changed = embedding.clone()
    changed[:, 256:, 8, 8] += 0.5
    for detail, reached in ((16, True), (0, False)):
        head = build_head("cnn", WITH_PIXELS, {"detail": detail}, {}).eval()
        difference = (head(changed) - head(embedding)).abs().amax(dim=(0, 1))
        assert bool(difference[32:36, 32:36].max() > 0) is reached
        assert difference[:16].max() == 0.0  # far away


@pytest.mark.parametrize("shape", [HeadShape(4, 256, 4, 192), HeadShape(4, 256, 4, 192, pixels=1)])
def test_the_inside_of_a_part_gets_the_logits_of_the_whole(shape: HeadShape) -> None:
    torch.manual_seed(0)
    head = build_head("cnn", shape, {}, {}).eval()
    embedding = torch.randn(1, 256 + shape.pixels * CELL**2, 48, 48)
    part = head(embedding[:, :, 12:36, 12:36])
    assert part.shape == (1, 4, 96, 96)
    torch.testing.assert_close(part[..., 32:64, 32:64], head(embedding)[..., 80:112, 80:112], rtol=1e-4, atol=1e-4)


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
        reached[context] = (head(changed) - head(embedding))[0, :, 127, 127].abs().max().item()
    assert reached[0.0] == 0.0
    assert reached[1.0] > 0.0


def test_a_joint_convolution_is_that_of_the_concatenated_inputs() -> None:
    torch.manual_seed(0)
    layer = JointConv2d(5, 4)
    parts = torch.randn(2, 2, 8, 8), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(layer(parts), torch.nn.functional.conv2d(torch.cat(parts, 1), layer.weight, padding=1))


def test_the_features_of_the_pixels_lie_channels_last() -> None:
    head = build_head("cnn", WITH_PIXELS, {}, {})
    features = head.detail.pixels(torch.randn(2, 1, 64, 64))
    assert features.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gelu_in_the_order_of_the_memory_is_gelu(layout: torch.memory_format) -> None:
    features = torch.randn(2, 8, 6, 5, generator=torch.Generator().manual_seed(0)).to(memory_format=layout)
    torch.testing.assert_close(PixelwiseGELU()(features), torch.nn.functional.gelu(features), rtol=1e-4, atol=1e-5)


def test_the_pixels_features_are_halved_to_the_mean_of_four() -> None:
    features = torch.randn(2, 8, 12, 16, generator=torch.Generator().manual_seed(0))
    halved = DetailPath(1, 32, 16).halves[0](features)
    torch.testing.assert_close(halved, torch.nn.functional.avg_pool2d(features, 2))
