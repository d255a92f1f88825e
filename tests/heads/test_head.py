"""The contract that every registered head keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import autosam_net.heads  # noqa: F401  (registers the built-in heads)
from autosam_net.encoders.catalog import ENCODERS
from autosam_net.errors import PlanError, UsageError
from autosam_net.heads.head import HEADS, HeadShape, build_head, enlarge, takes_prompts

SMALL = HeadShape(outputs=3, channels=256, stride=4, input_size=32)


def shape_for(name: str, shape: HeadShape) -> HeadShape:
    """Return the shape with the embedding of the head's own encoder, where it has one."""
    if (own := HEADS.get(name).recipe.encoder) is None:
        return shape
    return replace(shape, channels=ENCODERS.get(own).channels, stride=ENCODERS.get(own).stride)


def new_head(name: str, weights: dict[str, Tensor], shape: HeadShape = SMALL, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_head(name, shape_for(name, shape), {}, weights)


def inputs(name: str, shape: HeadShape = SMALL, batch: int = 2) -> list[Tensor]:
    """Return what a head takes: random embeddings, and a box for every class where it needs prompts."""
    shape, generator = shape_for(name, shape), torch.Generator().manual_seed(1)
    embedding = torch.randn(batch, shape.channels, shape.grid, shape.grid, generator=generator)
    if not takes_prompts(name):
        return [embedding]
    corners = torch.tensor([[3.0, 5.0, 2.0], [20.0, 16.0, 3.0]])
    return [embedding, corners.expand(batch, max(1, shape.outputs - 1), 1, 2, 3)]


@pytest.fixture(params=HEADS.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_promised_heads_are_there() -> None:
    assert {"linear", "cnn", "vit", "unet", "prompted"} <= set(HEADS)


@pytest.mark.parametrize("outputs", [1, 2, 7])
@pytest.mark.parametrize(("stride", "size"), [(4, 64), (4, 32), (16, 128), (16, 224)])
def test_logits_have_the_inputs_size(
    name: str, decoder_weights: dict[str, Tensor], outputs: int, stride: int, size: int
) -> None:
    shape = HeadShape(outputs, 256, stride, size)
    logits = new_head(name, decoder_weights, shape)(*inputs(name, shape))
    assert logits.shape == (2, outputs, size, size)
    assert logits.isfinite().all()


def test_gradients_reach_all_parameters_that_learn(name: str, decoder_weights: dict[str, Tensor]) -> None:
    head = new_head(name, decoder_weights).train()
    target = torch.arange(32 * 32).view(1, 32, 32).expand(2, 32, 32) % 3
    torch.nn.functional.cross_entropy(head(*inputs(name)), target).backward()
    learning = [(key, value) for key, value in head.named_parameters() if value.requires_grad]
    without = [key for key, value in learning if value.grad is None or not value.grad.any()]
    # a shift of all keys of an attention changes no softmax, so that their biases' gradient is zero but for rounding
    assert [key for key in without if not key.endswith("k_proj.bias")] == []


def test_the_same_seed_gives_the_same_logits(name: str, decoder_weights: dict[str, Tensor]) -> None:
    first, second = (new_head(name, decoder_weights).train() for _ in range(2))
    torch.manual_seed(3)
    expected = first(*inputs(name))
    torch.manual_seed(3)
    assert torch.equal(second(*inputs(name)), expected)


def test_state_dicts_restore_a_head_whatever_it_was_made_from(name: str, decoder_weights: dict[str, Tensor]) -> None:
    trained = new_head(name, decoder_weights).eval()
    others = {key: value + 1 for key, value in decoder_weights.items()}
    restored = new_head(name, others, seed=5).eval()
    restored.load_state_dict(trained.state_dict())
    assert torch.equal(restored(*inputs(name)), trained(*inputs(name)))


def test_slices_of_a_batch_do_not_touch_each_other(name: str, decoder_weights: dict[str, Tensor]) -> None:
    head = new_head(name, decoder_weights).eval()
    together = head(*inputs(name))
    assert torch.allclose(head(*(part[1:] for part in inputs(name)))[0], together[1], atol=1e-4)


def test_bfloat16_and_channels_last_give_nearly_the_same(name: str, decoder_weights: dict[str, Tensor]) -> None:
    head = new_head(name, decoder_weights).eval()
    exact = head(*inputs(name))
    head.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        embedding, *prompts = inputs(name)
        half = head(embedding.contiguous(memory_format=torch.channels_last), *prompts).float()
    assert (half - exact).norm() / exact.norm() < 0.05


def test_recipes_can_be_trained_with(name: str) -> None:
    recipe = HEADS.get(name).recipe
    assert min(recipe.batch_size, recipe.epochs, recipe.iterations) >= 1
    assert 0 < recipe.learning_rate < 0.1
    assert recipe.weight_decay >= 0
    assert recipe.encoder is None or recipe.encoder in ENCODERS


def test_an_unknown_setting_is_refused(name: str, decoder_weights: dict[str, Tensor]) -> None:
    with pytest.raises(PlanError, match=f"head '{name}': unknown setting 'dropuot'; did you mean 'dropout'"):
        build_head(name, SMALL, {"dropuot": 0.5}, decoder_weights)


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown head 'linaer'; did you mean 'linear'"):
        build_head("linaer", SMALL, {}, {})


def test_enlarge_leaves_what_fits() -> None:
    features = torch.rand(1, 2, 8, 8)
    assert enlarge(features, 8) is features
    assert enlarge(features, 16).shape == (1, 2, 16, 16)
