"""Pretrained networks that learn: by low-rank updates (LoRA), by bottleneck adapters, or as a whole.

The ways of Gu et al., "How to build the best medical image segmentation algorithm using foundation models" (arXiv
2404.09957), for the encoders and for the mask decoder that the head `vit` starts from. The networks' code does not know
of them: updates are parametrizations of a layer's weight, adapters hooks of a layer. Both begin at zero, so that a
fresh one leaves every output as it is. LoRA: Hu et al., ICLR 2022; adapters: Wu et al., Medical SAM Adapter, 2023.

Batch norms of the encoder stay in evaluation mode whatever learns (those of TinyViT are folded into convolutions).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from autosam_net.data.configuration import Tuning
from autosam_net.encoders.encoder import Encoder
from autosam_net.encoders.split import block_number, fused
from autosam_net.encoders.tiny_vit import HEAD_CHANNELS, Perceptron, WindowAttention
from autosam_net.errors import PlanError

ADAPTER_SCALE = 0.5  # of the adapter beside a perceptron, as published
OUTER_BLOCKS = (0, 1, -2, -1)  # that get adapters: as published, 0, 1, 10 and 11 of ViT-B's twelve
ENCODER, HEAD = "encoder.", "head."  # beginnings of the names of tensors in a model of both


class LowRankUpdate(nn.Module):
    """Adds up @ down to some rows of a weight: rank (inputs + rows) parameters for each of q and v.

    A fused qkv of width C has 2 rank (C + C) of them, so ViT-B's 12 blocks of width 768 have 147,456 with rank 4.
    """

    scales: Tensor

    def __init__(
        self, linear: nn.Linear, rank: int, parts: Mapping[int, float] | None = None, among: int = 1, groups: int = 1
    ) -> None:
        """Prepare an update of nothing.

        Args:
            parts: which of the `among` parts of each of `groups` runs of rows, such as q and v of q, k and v -> factor
                of its update; all rows if None.
        """
        super().__init__()
        parts = parts or {0: 1.0}
        self.parts, self.among, self.groups = list(parts), among, groups
        self.register_buffer("scales", torch.tensor(list(parts.values())).view(-1, 1, 1), persistent=False)
        self.down = nn.Parameter(torch.empty(len(parts), rank, linear.in_features))
        self.up = nn.Parameter(torch.zeros(len(parts), linear.out_features // among, rank))
        bound = 1 / math.sqrt(linear.in_features)
        nn.init.uniform_(self.down, -bound, bound)  # Kaiming's for a linear layer, as published
        self.to(linear.weight.device)  # made on the CPU, so that a seed means the same for all devices

    def forward(self, weight: Tensor) -> Tensor:
        """Return the updated weight."""
        with torch.autocast(weight.device.type, enabled=False):  # weights are rounded after the sum, not before
            update = torch.bmm(self.up * self.scales, self.down)
        updated = weight.reshape(self.groups, self.among, -1, weight.shape[1]).clone()
        updated[:, self.parts] += update.unflatten(1, (self.groups, -1)).transpose(0, 1)
        return updated.view_as(weight)


class Adapter(nn.Module):
    """Down to `ratio` of the width C, GELU, up again: 2 C H + H + C parameters with an inner width H."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        inner = max(1, int(width * ratio))
        self.down, self.up = nn.Linear(width, inner), nn.Linear(inner, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.up(nn.functional.gelu(self.down(tokens)))


def tune_encoder(encoder: Encoder, tuning: Tuning) -> None:
    """Let an encoder learn, as far as `tuning` says; random numbers come from torch's global generator.

    Raises:
        PlanError: the encoder has no attention blocks that could be tuned, or not so many.
    """
    encoder.learns = True
    if tuning.method == "full":
        encoder.network.requires_grad_(True)
    else:
        for block in _chosen_blocks(encoder, tuning):
            if tuning.method == "lora":
                _update_fused(block.attn, tuning.rank)
            else:
                width = block.attn.qkv.in_features
                _adapt(block.attn, width, tuning.ratio, nn.Module.register_forward_hook, _after)
                _adapt(block.mlp, width, tuning.ratio, nn.Module.register_forward_hook, _beside)
    if tuning.recompute:
        for block in _blocks(encoder.network):
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def tune_head(head: nn.Module, tuning: Tuning) -> None:
    """Freeze what a head has from the checkpoint, and give it updates or adapters; a head with nothing of it learns.

    Updates go into q and v of all seven attentions of SAM's decoder (23,552 parameters with rank 4), adapters behind
    the cross attentions and beside the perceptron of both its blocks. In the published code the adapter behind the
    attention from image to tokens is the one behind that from tokens to image; here each has its own.
    """
    pretrained: tuple[str, ...] = getattr(head, "pretrained", ())
    if tuning.method == "full" or not pretrained:
        return
    for name, parameter in head.named_parameters():
        parameter.requires_grad_(not name.startswith(pretrained))
    for module in list(head.modules()):
        if tuning.method == "lora" and isinstance(module, Attention):
            for linear in (module.q_proj, module.v_proj):
                _update(linear, LowRankUpdate(linear, tuning.rank))
        if tuning.method == "adapter" and isinstance(module, TwoWayAttentionBlock):
            width = module.norm2.normalized_shape[0]
            _adapt(module.norm2, width, tuning.ratio, nn.Module.register_forward_pre_hook, _before)
            _adapt(module.mlp, width, tuning.ratio, nn.Module.register_forward_hook, _beside)
            _adapt(module.norm4, width, tuning.ratio, nn.Module.register_forward_pre_hook, _before)


def settle_encoder(encoder: Encoder, precision: Any) -> None:
    """Merge what an encoder has learnt into its weights where that can be, freeze it, and round it to `precision`."""
    encoder.learns = False
    for module in list(encoder.network.modules()):
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        if isinstance(module, WindowAttention):
            module.spread_biases()
        vars(module).pop("forward", None)  # that recomputes
    encoder.requires_grad_(False)
    encoder.set_precision(precision)


def learnt(model: nn.Module) -> dict[str, Tensor]:
    """Return what training may change in a head, or in encoder and head: what learns, and a head's buffers."""
    parameters = dict(model.named_parameters())
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if (parameters[name].requires_grad if name in parameters else not name.startswith(ENCODER))
    }


def load_learnt(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `learnt` returned, and whatever else of the model is among the tensors.

    Raises:
        RuntimeError: something is missing, unknown or of another shape.
    """
    missing, unknown = learnt(model).keys() - tensors.keys(), tensors.keys() - model.state_dict().keys()
    if missing or unknown:
        raise RuntimeError(f"missing {sorted(missing)[:3]}, unknown {sorted(unknown)[:3]}")
    model.load_state_dict(tensors, strict=False)


def count_parameters(model: nn.Module) -> dict[str, dict[str, int]]:
    """Return part ("encoder", "head") -> number of parameters in all, and of those that learn."""
    counts: dict[str, dict[str, int]] = {}
    for name, parameter in model.named_parameters():
        count = counts.setdefault((ENCODER if name.startswith(ENCODER) else HEAD)[:-1], {"all": 0, "trained": 0})
        count["all"] += parameter.numel()
        count["trained"] += parameter.numel() * parameter.requires_grad
    return counts


def _blocks(network: nn.Module) -> Iterator[Any]:
    """Yield the members of all lists of modules called `blocks`, from the image on: SAM's, TinyViT's and timm's."""
    for module in network.modules():
        if isinstance(blocks := getattr(module, "blocks", None), nn.ModuleList):
            yield from blocks


def _chosen_blocks(encoder: Encoder, tuning: Tuning) -> list[Any]:
    found = [block for block in _blocks(encoder.network) if fused(block) is not None]
    if not found:
        raise PlanError(
            f"{encoder.name}: no attention with a fused qkv in modules called `blocks`, so that it cannot be tuned by "
            f"{tuning.method}. Choose encoder+head:full."
        )
    every = range(len(found)) if tuning.method == "lora" else sorted({number % len(found) for number in OUTER_BLOCKS})
    chosen = every if tuning.blocks is None else tuning.blocks
    return [found[place] for place in sorted({block_number(encoder.name, number, len(found)) for number in chosen})]


def _update_fused(attention: Any, rank: int) -> None:
    """Let queries and values learn; TinyViT keeps q, k and v of each head together, and its folded q is scaled."""
    groups, scale = 1, 1.0
    if isinstance(attention, WindowAttention):
        groups, scale = attention.heads, HEAD_CHANNELS**-0.5
    update = LowRankUpdate(attention.qkv, rank, {0: scale, 2: 1.0}, among=3, groups=groups)
    _update(attention.qkv, update)


def _update(linear: nn.Linear, update: LowRankUpdate) -> None:
    # unsafe: nothing is computed now, since there may be shapes only
    parametrize.register_parametrization(linear, "weight", update, unsafe=True)


def _adapt(
    module: nn.Module, width: int, ratio: float, register: Callable[..., object], hook: Callable[..., object]
) -> None:
    module.adapter = Adapter(width, ratio)
    register(module, hook)


def _after(module: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output + module.adapter(output)


def _beside(module: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    normed = module.norm(inputs[0]) if isinstance(module, Perceptron) else inputs[0]  # TinyViT's brings its norm
    return output + ADAPTER_SCALE * module.adapter(normed)


def _before(module: Any, inputs: tuple[Tensor]) -> Tensor:
    return inputs[0] + module.adapter(inputs[0])
