"""Folded attention and its transformer are SAM's, number by number and gradient by gradient."""

from __future__ import annotations

import copy

import pytest
import torch
from segment_anything.modeling import TwoWayTransformer
from segment_anything.modeling.transformer import Attention
from torch import Tensor

from autosam_net.heads.attention import FoldedAttention, FoldedTransformer


@pytest.mark.parametrize("tokens", [1, 3, 9])  # with 9 tokens and 4 heads of 8 channels nothing is folded
@pytest.mark.parametrize("asks", ["tokens", "pixels"])
def test_values_and_gradients_are_those_of_the_published_attention(tokens: int, asks: str) -> None:
    torch.manual_seed(0)
    published = Attention(64, num_heads=4, downsample_rate=2).double()
    few, many = torch.randn(2, tokens, 64).double(), torch.randn(2, 50, 64).double()
    queries, others = (few, many) if asks == "tokens" else (many, few)
    values = torch.randn_like(others)
    expected, gradients = _run(published, queries, others, values)
    found, same = _run(FoldedAttention(published), queries, others, values)
    torch.testing.assert_close(found, expected)
    for name, gradient in gradients.items():
        torch.testing.assert_close(same[name], gradient, msg=name)


def _run(attention: Attention, *inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    attention.zero_grad()
    found = attention(*inputs)
    found.square().sum().backward()
    # of every weight, since processes that train together wait for each
    return found, {name: weights.grad.clone() for name, weights in attention.named_parameters()}


def test_weights_keep_their_names_and_no_random_number_is_drawn() -> None:
    transformer = TwoWayTransformer(depth=2, embedding_dim=32, num_heads=2, mlp_dim=16)
    names = list(transformer.state_dict())
    torch.manual_seed(0)
    assert list(FoldedTransformer(transformer).state_dict()) == names
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), drawn)


@pytest.mark.parametrize("tokens", [3, 9])  # with 9 tokens nothing is folded
@pytest.mark.parametrize("images", [1, 2])  # that share their positions, or have their own
def test_the_transformer_computes_what_the_published_one_does(tokens: int, images: int) -> None:
    torch.manual_seed(0)
    published = TwoWayTransformer(depth=2, embedding_dim=64, num_heads=4, mlp_dim=16).double()
    folded = FoldedTransformer(copy.deepcopy(published))
    image, positions = torch.randn(2, 64, 5, 6).double(), torch.randn(images, 64, 5, 6).double()
    prompts = torch.randn(2, tokens, 64).double()
    expected = published(image, positions.expand(2, -1, -1, -1), prompts)
    found = folded(image, positions, prompts)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    for part in (*found, *expected):
        part.square().sum().backward(retain_graph=True)
    gradients = {name: weights.grad for name, weights in published.named_parameters()}
    for name, weights in folded.named_parameters():
        torch.testing.assert_close(weights.grad, gradients[name], msg=name)
