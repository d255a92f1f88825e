from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from autosam_net.encoders.catalog import EncoderEntry
from autosam_net.encoders.encoder import Precision, load_encoder, read_checkpoint, supports_bfloat16
from autosam_net.encoders.weights import file_sha256, find_weights, has_weights, weights_sha256
from autosam_net.errors import PlanError, UsageError, WeightsError


def test_an_encoder_says_what_it_is(toy: EncoderEntry, toy_weights: Path) -> None:
    encoder = load_encoder("toy", 48, toy_weights, precision="float32")
    assert (encoder.name, encoder.input_size, encoder.stride, encoder.channels) == ("toy", 48, 8, 256)
    assert encoder.weights_sha256 == file_sha256(toy_weights)
    assert encoder(torch.rand(2, 3, 48, 48)).shape == (2, 256, 6, 6)
    assert load_encoder("toy", weights=toy_weights).input_size == 64


def test_encoding_and_training_a_head_change_no_weight(toy: EncoderEntry, toy_weights: Path) -> None:
    encoder = load_encoder("toy", weights=toy_weights, precision="float32")
    assert encoder.train() is encoder
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    head = torch.nn.Conv2d(256, 2, 1)
    head(encoder(torch.rand(2, 3, 64, 64))).sum().backward()
    assert head.weight.grad is not None
    after = encoder.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_pixels_are_normalised_as_the_entry_says(toy: EncoderEntry, toy_weights: Path) -> None:
    encoder = load_encoder("toy", weights=toy_weights, precision="float32")
    encoder.network = torch.nn.Identity()
    mean = torch.tensor(toy.pixel_mean).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    std = torch.tensor(toy.pixel_std).view(1, 3, 1, 1)
    assert torch.allclose(encoder(mean / 255), torch.zeros(()), atol=1e-5)
    assert torch.allclose(encoder((mean + std) / 255), torch.ones(()), atol=1e-5)


def test_bfloat16_gives_nearly_the_same_in_float32(toy: EncoderEntry, toy_weights: Path) -> None:
    images = torch.rand(1, 3, 64, 64)
    exact = load_encoder("toy", weights=toy_weights, precision="float32")(images)
    half = load_encoder("toy", weights=toy_weights, precision="bfloat16")(images)
    assert half.dtype == torch.float32
    assert (half - exact).norm() / exact.norm() < 0.02


def test_precision_follows_the_machine(toy: EncoderEntry, toy_weights: Path) -> None:
    expected = "bfloat16" if supports_bfloat16("cpu") else "float32"
    assert load_encoder("toy", weights=toy_weights).precision == expected
    assert not supports_bfloat16("meta")


def test_the_decoder_of_the_checkpoint_is_handed_on(toy: EncoderEntry, toy_weights: Path) -> None:
    decoder = load_encoder("toy", weights=toy_weights).mask_decoder_weights
    names = {"mask_decoder.iou_token.weight", "prompt_encoder.not_a_point_embed.weight"}
    assert {key: value.dtype for key, value in decoder.items()} == dict.fromkeys(names, torch.float32)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_encoder_without_weights_changes_nothing(precision: Precision) -> None:
    encoder = load_encoder("image", input_size=32, precision=precision)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(encoder(images), images)
    assert encoder.weights_sha256 == weights_sha256("image") == "none"
    assert encoder.mask_decoder_weights == {}
    assert has_weights("image") and find_weights("image") is None


def test_images_of_another_size_are_a_fault(toy: EncoderEntry, toy_weights: Path) -> None:
    with pytest.raises(AssertionError, match="toy takes"):
        load_encoder("toy", weights=toy_weights)(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize("size", [0, -64, 100])
def test_an_input_size_that_does_not_fit_is_refused(size: int) -> None:
    with pytest.raises(PlanError, match=f"lite_medsam: input size {size} is no multiple of 64 px"):
        load_encoder("lite_medsam", size)


def test_an_unknown_encoder_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown encoder"):
        load_encoder("resnet")


def test_weights_of_another_encoder_are_refused(toy_weights: Path) -> None:
    with pytest.raises(WeightsError, match=r"toy.pth: these are not weights of lite_medsam \(.*\). Give another file"):
        load_encoder("lite_medsam", weights=toy_weights)


def test_checkpoints_may_be_wrapped(tmp_path: Path) -> None:
    state = {"image_encoder.weight": torch.ones(1)}
    for wrapper in ("model", "state_dict"):
        torch.save({wrapper: state, "epoch": 3}, tmp_path / "wrapped.pth")
        assert list(read_checkpoint(tmp_path / "wrapped.pth")) == ["image_encoder.weight"]


def test_damaged_files_are_refused(tmp_path: Path, toy_weights: Path) -> None:
    damaged = tmp_path / "damaged.pth"
    for content in (b"", b"no checkpoint", toy_weights.read_bytes()[:5000]):
        damaged.write_bytes(content)
        with pytest.raises(WeightsError, match=r"damaged.pth: not a checkpoint of torch"):
            read_checkpoint(damaged)


def test_other_layouts_are_refused(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other.pth: no weights named image_encoder\.\*"):
        read_checkpoint(tmp_path / "other.pth")


class Mischief:
    def __reduce__(self) -> tuple[object, ...]:
        return os.getcwd, ()


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"image_encoder.weight": Mischief()}, tmp_path / "mischief.pth")
    with pytest.raises(WeightsError, match="not a checkpoint"):
        read_checkpoint(tmp_path / "mischief.pth")
