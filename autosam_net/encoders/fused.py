"""Layers in one pass over the memory, for frozen networks on a CPU.

A convolution that applies its activation while the result is still in the registers, and attention in small windows as
two batched products, save half the time of the same layers one by one. Where the fused kernels do not exist, or a
gradient, autocast or a graph is asked for, the same functions run in their plain form.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST_LOGIT = 80.0
"""Of attention, either sign; exp of more than 88 is no float32, and a row of less than -88 would be divided by zero."""

STRIP = 2**13
"""Pixels of a strip over its stride: 4 MiB with the 256 channels of TinyViT's first stage, not 32 MiB for a slice."""


def conv_gelu(conv: nn.Conv2d, features: Tensor) -> Tensor:
    """Return GELU (by the error function) of a convolution."""
    if not _fuses(features):
        return F.gelu(conv(features))
    return torch.ops.mkldnn._convolution_pointwise(
        features, conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups, "gelu", [], "none"
    )


def linear_gelu(linear: nn.Linear, tokens: Tensor) -> Tensor:
    """Return GELU (by the error function) of a linear layer."""
    if not (_fuses(tokens) and tokens.dtype == torch.bfloat16):  # products in float32 are MKL's
        return F.gelu(linear(tokens))
    return torch.ops.mkldnn._linear_pointwise(tokens, linear.weight, linear.bias, "gelu", [], "none")


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Return softmax(query key^T + bias) value of (windows, heads, tokens, channels), the query scaled already.

    In windows of some hundred tokens the products are small, and the streaming softmax of flash attention costs three
    times as much as they do. The logits of such windows are small, too, so that no maximum has to be taken off first.

    Args:
        bias: (heads, tokens, tokens).
    """
    if query.device.type == "cpu" and torch.is_grad_enabled():  # a fifth off a whole step of LoRA, and 0.5 GB
        logits = torch.matmul(query, key.transpose(-1, -2)) + bias.to(query.dtype)
        return torch.matmul(logits.softmax(-1).to(value.dtype), value)
    if not _fuses(query):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)
    weights = torch.matmul(query, key.transpose(-1, -2)).add_(bias).clamp_(-LARGEST_LOGIT, LARGEST_LOGIT).exp_()
    return torch.matmul(weights, value).div_(weights.sum(-1, keepdim=True))


def in_strips(function: Callable[[Tensor], Tensor], images: Tensor, stride: int = 1) -> Tensor:
    """Return a local `function` of images (B, C, H, W), a strip of rows at a time: what lies between stays small.

    Args:
        function: whose rows depend on no other rows than theirs and their neighbours, as after one 3x3 convolution.
        stride: of the function, 1 or 2.
    """
    if not _fuses(images):
        return function(images)
    return torch.cat([_in_strips(function, image, stride) for image in images.split(1)])


def _in_strips(function: Callable[[Tensor], Tensor], image: Tensor, stride: int) -> Tensor:
    height, width = image.shape[2:]
    rows = max(STRIP // width, 1) * stride
    strips = []
    for start in range(0, height, rows):
        first = max(start - stride, 0)  # each strip sees its neighbours' nearest rows, which are cut off afterwards
        strip = function(image[:, :, first : start + rows + stride])
        above = (start - first) // stride
        strips.append(strip[:, :, above : above + rows // stride])
    return torch.cat(strips, 2)


def _fuses(features: Tensor) -> bool:
    return (
        features.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )
