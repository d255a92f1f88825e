"""TinyViT as the image encoder of LiteMedSAM and MobileSAM.

Architecture: Wu et al., TinyViT, ECCV 2022, in the form of Zhang et al., MobileSAM, arXiv 2306.14289 (5 M parameters;
the last down-sampling keeps the resolution; SAM's neck makes 256 channels). LiteMedSAM differs in the stem alone, which
keeps the resolution of its 256-pixel input where MobileSAM's divides that of 1024 pixels by four. Parameter names are
the published ones.

Tensors are (B, C, H, W) in channels-last memory throughout, so that the (B, H, W, C) view that attention wants is free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from autosam_net.encoders.fused import attend, conv_gelu, in_strips, linear_gelu

WIDTHS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
WINDOWS = (0, 7, 14, 7)  # tokens a side; the first stage is convolutional
STRIDES = (2, 2, 1)  # of the down-sampling after the first three stages
HEAD_CHANNELS = 32
NORM_EPSILON = 1e-5  # of torch's batch norms
CLASSIFIER = ("norm_head.", "head.")  # left in MobileSAM's file from TinyViT's training on ImageNet, never used


def build_tiny_vit(stem_stride: int, weights: Mapping[str, Tensor]) -> TinyViT:
    """Return the network with `weights`, in eval mode, its batch norms folded into the convolutions.

    Raises:
        RuntimeError: the weights do not fit.
    """
    network = TinyViT(stem_stride)
    network.load_state_dict({key: value for key, value in weights.items() if not key.startswith(CLASSIFIER)})
    network.eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, ConvNorm | WindowAttention):
            module.fold()
    return network


class TinyViT(nn.Module):
    """(B, 3, S, S) -> (B, 256, S / stride, S / stride) with stride 4 * `stem_stride`; any S that the stride divides."""

    def __init__(self, stem_stride: int) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(WIDTHS[0], stem_stride)
        self.layers = nn.ModuleList(_build_stage(index) for index in range(len(WIDTHS)))
        self.neck = nn.Sequential(
            nn.Conv2d(WIDTHS[-1], 256, 1, bias=False),
            ChannelNorm(256, eps=1e-6),
            nn.Conv2d(256, 256, 3, padding=1, bias=False),
            ChannelNorm(256, eps=1e-6),
        )

    def steps(self) -> list[nn.Module]:
        """Return the modules through which the features go one after the other."""
        inner = (step for stage in self.layers for step in cast(Stage, stage).steps())
        return [self.patch_embed, *inner, self.neck]

    def forward(self, images: Tensor) -> Tensor:
        features = images
        for step in self.steps():
            features = step(features)
        return features

    def published_weights(self) -> dict[str, Tensor]:
        """Return the state dict in the published layout, of which `fold` makes this network's (but for rounding)."""
        state = {key: value.float() for key, value in self.state_dict().items() if not key.endswith(".c.bias")}
        for name, module in self.named_modules():
            if isinstance(module, ConvNorm):
                state |= {f"{name}.bn.{key}": value for key, value in module.unfolded_norm().items()}
            if isinstance(module, WindowAttention):
                scale = module.query_scale().to(state[f"{name}.qkv.weight"].device)
                state[f"{name}.qkv.weight"] = state[f"{name}.qkv.weight"] / scale.view(-1, 1)
                state[f"{name}.qkv.bias"] = state[f"{name}.qkv.bias"] / scale.view(-1)
        return state


def _build_stage(index: int) -> Stage:
    width = WIDTHS[index]
    blocks = [
        AttentionBlock(width, WINDOWS[index]) if WINDOWS[index] else ConvBlock(width) for _ in range(DEPTHS[index])
    ]
    last = index == len(WIDTHS) - 1
    return Stage(blocks, None if last else DownSampling(width, WIDTHS[index + 1], STRIDES[index]))


class Stage(nn.Module):
    """Blocks at one resolution, then the way to the next."""

    def __init__(self, blocks: Iterable[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def steps(self) -> list[nn.Module]:
        """Return the modules through which the features go one after the other."""
        return [*self.blocks, *([] if self.downsample is None else [self.downsample])]


class ConvNorm(nn.Sequential):
    """Convolution and batch norm, which `fold` makes one convolution."""

    c: nn.Conv2d
    bn: Any  # a BatchNorm2d; once folded, the identity

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.add_module("c", nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False))
        self.add_module("bn", nn.BatchNorm2d(outputs))

    def fold(self) -> None:
        """Fold the norm's running statistics into the convolution: the same function in one pass over the memory."""
        self.c = fuse_conv_bn_eval(self.c, self.bn)
        self.bn = nn.Identity()

    def unfolded_norm(self) -> dict[str, Tensor]:
        """Return a norm which, behind the folded convolution without its bias, is the same function."""
        bias = cast(Tensor, self.c.bias).float()
        ones, variance = torch.ones_like(bias), torch.full_like(bias, 1 - NORM_EPSILON)
        return {"weight": ones, "bias": bias, "running_mean": 0 * bias, "running_var": variance}

    def gelu(self, features: Tensor) -> Tensor:
        """Return GELU of the folded convolution."""
        return conv_gelu(self.c, features)


class PatchEmbedding(nn.Module):
    """The stem: two convolutions, 1x1 for stride 1 (LiteMedSAM), 3x3 with stride 2 each for stride 4 (MobileSAM)."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        kernel, step = {1: (1, 1), 4: (3, 2)}[stride]
        self.seq = nn.Sequential(
            ConvNorm(3, width // 2, kernel, step), nn.GELU(), ConvNorm(width // 2, width, kernel, step)
        )

    def forward(self, images: Tensor) -> Tensor:
        first, last = cast(ConvNorm, self.seq[0]), self.seq[2]
        return last(first.gelu(images))


class ConvBlock(nn.Module):
    """Inverted bottleneck: 1x1 to four times the width, depth-wise 3x3, 1x1 back, with a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(width, 4 * width)
        self.conv2 = ConvNorm(4 * width, 4 * width, 3, groups=4 * width)
        self.conv3 = ConvNorm(4 * width, width)

    def forward(self, features: Tensor) -> Tensor:
        return in_strips(self._block, features)

    def _block(self, features: Tensor) -> Tensor:
        return F.gelu(features + self.conv3(self.conv2.gelu(self.conv1.gelu(features))))


class DownSampling(nn.Module):
    """1x1 to the next width, depth-wise 3x3 with the stride, 1x1."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = ConvNorm(inputs, outputs)
        self.conv2 = ConvNorm(outputs, outputs, 3, stride, groups=outputs)
        self.conv3 = ConvNorm(outputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        return in_strips(self._way_down, features, self.stride)

    def _way_down(self, features: Tensor) -> Tensor:
        return self.conv3(self.conv2.gelu(self.conv1.gelu(features)))


class AttentionBlock(nn.Module):
    """Attention inside windows, a depth-wise convolution between them, and a perceptron."""

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        self.attn = WindowAttention(width, window)
        self.local_conv = ConvNorm(width, width, 3, groups=width)
        self.mlp = Perceptron(width)

    def forward(self, features: Tensor) -> Tensor:
        tokens = features.permute(0, 2, 3, 1)
        tokens = tokens + self.attn(tokens)
        tokens = self.local_conv(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (tokens + self.mlp(tokens)).permute(0, 3, 1, 2)


class Perceptron(nn.Module):
    """Norm, four times the width, back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(linear_gelu(self.fc1, self.norm(tokens)))


class WindowAttention(nn.Module):
    """Self-attention inside windows of `window` x `window` tokens, with a bias per head and distance (|dy|, |dx|).

    A grid that is no multiple of the window is padded with zeros, which take part as tokens (as in the published code).
    """

    bias: Tensor

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.heads = width // HEAD_CHANNELS
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(self.heads, window**2))
        self.register_buffer("bias", torch.zeros(self.heads, window**2, window**2), persistent=False)

    def fold(self) -> None:
        """Scale the queries in their projection, and spread the biases over pairs of tokens, once for all passes."""
        scale = self.query_scale()
        self.qkv.weight.mul_(scale.view(-1, 1))
        self.qkv.bias.mul_(scale.view(-1))
        self.spread_biases()

    def query_scale(self) -> Tensor:
        """Return the factors of the channels (heads, 3, 32) of query, key and value that `fold` puts into `qkv`."""
        scale = torch.ones(self.heads, 3, HEAD_CHANNELS)
        scale[:, 0] = HEAD_CHANNELS**-0.5
        return scale

    def spread_biases(self) -> None:
        """Take over changed biases."""
        self.bias = self._biases_of_pairs().detach()

    def _biases_of_pairs(self) -> Tensor:
        return self.attention_biases[:, _distance_index(self.window)]

    def forward(self, tokens: Tensor) -> Tensor:
        batch, height, width, channels = tokens.shape
        side = self.window
        tokens = F.pad(tokens, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = tokens.shape[1] // side, tokens.shape[2] // side
        windows = tokens.reshape(batch, rows, side, columns, side, channels).transpose(2, 3)
        attended = self._attend(windows.reshape(-1, side**2, channels))
        grid = attended.reshape(batch, rows, columns, side, side, channels).transpose(2, 3)
        return grid.reshape(batch, rows * side, columns * side, channels)[:, :height, :width]

    def _attend(self, tokens: Tensor) -> Tensor:
        """Return attention within each window: (windows, tokens, channels) to the same."""
        count, length, channels = tokens.shape
        # each head's query, key and value stand side by side in the channels
        joint = self.qkv(self.norm(tokens)).reshape(count, length, self.heads, 3, HEAD_CHANNELS)
        query, key, value = joint.permute(3, 0, 2, 1, 4).contiguous().unbind(0)  # (windows, heads, tokens, 32) each
        bias = self._biases_of_pairs() if self.attention_biases.requires_grad else self.bias
        attended = attend(query, key, value, bias)
        return self.proj(attended.transpose(1, 2).reshape(count, length, channels))


def _distance_index(window: int) -> Tensor:
    """Return |dy| * window + |dx| for each pair of tokens of a window, (window**2, window**2)."""
    position = torch.cartesian_prod(torch.arange(window), torch.arange(window))
    distance = (position[:, None] - position[None]).abs()
    return distance[..., 0] * window + distance[..., 1]


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, H, W), SAM's LayerNorm2d in one fused pass."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
