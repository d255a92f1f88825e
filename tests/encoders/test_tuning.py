"""What learns begins at nothing and is all that changes; what has been learnt is merged or carried along."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autosam_net.data.configuration import STRATEGIES, Tuning, parse_tuning
from autosam_net.encoders.catalog import EncoderEntry
from autosam_net.encoders.encoder import Encoder, load_encoder
from autosam_net.encoders.tuning import (
    Adapter,
    LowRankUpdate,
    count_parameters,
    learnt,
    load_learnt,
    settle_encoder,
    tune_encoder,
)
from autosam_net.errors import PlanError, UsageError

METHODS = ("full", "lora", "adapter")
WIDTHS = (128, 128, *[160] * 6, 320, 320)  # of TinyViT's attention blocks
OUTER = (128, 128, 320, 320)


def tuned(method: str, **settings: object) -> Tuning:
    return Tuning("encoder+head", method, **settings)  # type: ignore[arg-type]


def lite_medsam() -> Encoder:
    return load_encoder("lite_medsam", 64, precision="float32")


@pytest.fixture
def images() -> Tensor:
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def disturb(encoder: Encoder) -> None:
    """Change all that learns, as a training would."""
    torch.manual_seed(1)
    for parameter in encoder.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn_like(parameter)


@pytest.mark.parametrize("text", STRATEGIES)
def test_every_strategy_has_its_meaning(text: str) -> None:
    tuning = parse_tuning(text)
    assert text == ("head" if tuning is None else f"{tuning.part}:{tuning.method}")


@pytest.mark.parametrize("text", ["lora", "head:lara", "encoder:lora", ""])
def test_other_strategies_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--tune .*: (did you mean|known: head, head:lora)"):
        parse_tuning(text)


@pytest.mark.parametrize("method", METHODS)
def test_a_fresh_tuning_changes_no_bit(method: str, images: Tensor) -> None:
    encoder = lite_medsam()
    before = encoder(images)
    tune_encoder(encoder, tuned(method))
    with torch.no_grad():
        assert torch.equal(encoder(images), before)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_reach_what_learns_and_nothing_else(method: str, images: Tensor) -> None:
    encoder = lite_medsam()
    tune_encoder(encoder, tuned(method))
    encoder(images).square().mean().backward()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.parametrize("method", METHODS)
def test_what_is_learnt_is_settled_into_a_frozen_encoder(method: str, images: Tensor) -> None:
    encoder = lite_medsam()
    before = encoder(images)
    tune_encoder(encoder, tuned(method))
    disturb(encoder)
    with torch.no_grad():
        learning = encoder(images)
    settle_encoder(encoder, "float32")
    assert torch.allclose(encoder(images), learning, atol=1e-5)
    assert not torch.allclose(learning, before, atol=1e-3)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder(images).requires_grad
    updates = [module for module in encoder.modules() if isinstance(module, LowRankUpdate)]
    assert not updates, "merged, so that the fused layers see plain weights"


@pytest.mark.parametrize("method", METHODS)
def test_what_is_learnt_can_be_put_back(method: str, images: Tensor) -> None:
    first, second = (nn.ModuleDict({"encoder": lite_medsam()}) for _ in range(2))
    for model in (first, second):
        tune_encoder(model["encoder"], tuned(method))
    disturb(first["encoder"])
    load_learnt(second, learnt(first))
    with torch.no_grad():
        assert torch.equal(first["encoder"](images), second["encoder"](images))
    with pytest.raises(RuntimeError, match="missing"):
        load_learnt(second, {})
    with pytest.raises(RuntimeError, match="unknown"):
        load_learnt(second, learnt(first) | {"other": torch.zeros(1)})


def test_numbers_of_parameters_follow_the_formulas() -> None:
    def trained(tuning: Tuning) -> int:
        model = nn.ModuleDict({"encoder": lite_medsam()})
        tune_encoder(model["encoder"], tuning)
        counts = count_parameters(model)["encoder"]
        assert counts["trained"] == sum(tensor.numel() for tensor in learnt(model).values())
        return counts["trained"]

    def adapter(width: int, inner: int) -> int:
        return 2 * width * inner + inner + width

    assert trained(tuned("lora")) == sum(2 * 4 * (width + width) for width in WIDTHS) == 29_696
    assert trained(tuned("lora", rank=8, blocks=(-1,))) == 2 * 8 * (320 + 320)
    assert trained(tuned("adapter")) == sum(2 * adapter(width, width // 4) for width in OUTER) == 239_808
    assert trained(tuned("adapter", ratio=0.5, blocks=(0,))) == 2 * adapter(128, 64)
    assert trained(tuned("full")) == sum(parameter.numel() for parameter in lite_medsam().parameters())


@pytest.mark.parametrize("groups", [1, 4])
def test_keys_are_not_updated(groups: int) -> None:
    """q, k and v lie one after the other, in SAM's ViT once and in TinyViT once for each head."""
    linear = nn.Linear(8, 3 * 8)
    update = LowRankUpdate(linear, 2, {0: 0.5, 2: 1.0}, among=3, groups=groups)
    nn.init.normal_(update.up)
    changed = (update(linear.weight) != linear.weight).view(groups, 3, -1, 8)
    assert changed[:, 0].all() and not changed[:, 1].any() and changed[:, 2].all()
    plain = LowRankUpdate(nn.Linear(8, 5), 2)
    nn.init.normal_(plain.up)
    assert torch.allclose(plain(torch.zeros(5, 8)), plain.up[0] @ plain.down[0])


def test_a_fresh_adapter_gives_zero() -> None:
    assert not Adapter(16, 0.25)(torch.rand(2, 16)).any()


def test_recomputing_changes_no_gradient(images: Tensor) -> None:
    gradients = []
    for recompute in (False, True):
        encoder = lite_medsam()
        torch.manual_seed(0)
        tune_encoder(encoder, tuned("lora", recompute=recompute))
        disturb(encoder)
        encoder(images).square().mean().backward()
        gradients.append([parameter.grad for parameter in encoder.parameters() if parameter.requires_grad])
    assert all(torch.allclose(one, other, rtol=1e-4, atol=1e-7) for one, other in zip(*gradients, strict=True))


def test_batch_norms_stay_in_evaluation_mode(toy: EncoderEntry, toy_weights: Path) -> None:
    encoder = load_encoder("toy", weights=toy_weights, precision="float32")
    tune_encoder(encoder, tuned("full"))
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    nn.Sequential(encoder).train()(torch.rand(2, 3, 64, 64)).sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in encoder.named_buffers())
    model = nn.ModuleDict({"encoder": encoder})
    assert set(learnt(model)) == {f"encoder.network.{name}" for name, _ in encoder.network.named_parameters()}


def test_encoders_without_such_blocks_are_refused(toy: EncoderEntry, toy_weights: Path) -> None:
    encoder = load_encoder("toy", weights=toy_weights, precision="float32")
    with pytest.raises(PlanError, match=r"toy: no attention with a fused qkv .* Choose encoder\+head:full"):
        tune_encoder(encoder, tuned("lora"))
    with pytest.raises(PlanError, match="blocks: lite_medsam has 10 attention blocks, none is 10"):
        tune_encoder(lite_medsam(), tuned("lora", blocks=(10,)))


@pytest.mark.parametrize("change", [lambda encoder: tune_encoder(encoder, tuned("lora")), lambda encoder: None])
def test_autocast_outside_leaves_a_settled_encoder_as_it_is(change: Callable[[Encoder], None], images: Tensor) -> None:
    encoder = lite_medsam()
    change(encoder)
    settle_encoder(encoder, "float32")
    expected = encoder(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder(images), expected)
