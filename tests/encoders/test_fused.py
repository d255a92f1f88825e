from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autosam_net.encoders import fused
from autosam_net.encoders.fused import attend, conv_gelu, in_strips, linear_gelu

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02}
TYPES = pytest.mark.parametrize("dtype", TOLERANCE)


@pytest.fixture(autouse=True)
def _no_gradients() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


@TYPES
@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_with_gelu_is_both_in_turn(dtype: torch.dtype, groups: int, stride: int) -> None:
    conv = nn.Conv2d(8, 16, 3, stride, padding=1, groups=groups).to(dtype)
    images = torch.randn(2, 8, 10, 12, dtype=dtype).contiguous(memory_format=torch.channels_last)
    assert difference(conv_gelu(conv, images), F.gelu(conv.float()(images.float()))) < TOLERANCE[dtype]


@TYPES
def test_a_linear_layer_with_gelu_is_both_in_turn(dtype: torch.dtype) -> None:
    linear, tokens = nn.Linear(8, 16).to(dtype), torch.randn(2, 5, 6, 8, dtype=dtype)
    found = linear_gelu(linear, tokens)
    assert found.shape == (2, 5, 6, 16)
    assert difference(found, F.gelu(linear.float()(tokens.float()))) < TOLERANCE[dtype]


@TYPES
def test_attention_is_the_softmax(dtype: torch.dtype) -> None:
    query, key, value = torch.randn(3, 4, 2, 9, 32, dtype=dtype).unbind(0)
    bias = torch.randn(2, 9, 9, dtype=dtype)
    logits = query.float() @ key.float().transpose(-1, -2) + bias.float()
    assert (
        difference(attend(query / 4, key, value, bias), ((logits - bias) / 4 + bias).softmax(-1) @ value.float()) < 0.03
    )


def test_large_logits_of_attention_stay_finite() -> None:
    query, key, value = torch.full((3, 1, 1, 4, 32), 1000.0).unbind(0)
    assert torch.equal(attend(query, key, value, torch.zeros(1, 4, 4)), value)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("height", [2, 6, 14])
def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch, stride: int, height: int) -> None:
    monkeypatch.setattr(fused, "STRIP", 24)  # rows of 10 pixels: two at a time, with stride 2 four
    conv, images, seen = nn.Conv2d(3, 4, 3, stride, padding=1), torch.randn(2, 3, height, 10), []

    def function(strip: Tensor) -> Tensor:
        seen.append(strip.shape[2])
        return conv(strip)

    assert torch.allclose(in_strips(function, images, stride), conv(images), atol=1e-6)
    assert max(seen) <= 2 * stride + 2 * stride


def test_with_gradients_all_layers_run_in_their_plain_form() -> None:
    conv, linear = nn.Conv2d(4, 4, 1), nn.Linear(4, 4)
    with torch.enable_grad():
        hidden = in_strips(lambda images: conv_gelu(conv, images), torch.randn(1, 4, 3, 3))
        tokens = linear_gelu(linear, hidden.flatten(2).transpose(1, 2))[:, None]
        attend(tokens, tokens, tokens, torch.zeros(1, 9, 9)).sum().backward()
    assert conv.weight.grad is not None and linear.weight.grad is not None
