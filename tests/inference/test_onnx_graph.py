"""The ONNX graph gives in onnxruntime what torch gives: logits within 1e-4 of the largest one, in float32."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autosam_net.data.encoding import Encoding, RgbSource
from autosam_net.embedding.source import EncoderSource, encode_inputs
from autosam_net.encoders.encoder import load_encoder
from autosam_net.errors import ModelError, UsageError
from autosam_net.heads.head import build_head
from autosam_net.inference import onnx_graph
from autosam_net.inference.load import load_model
from autosam_net.inference.model import Model
from autosam_net.inference.onnx_graph import TOLERANCE, LogitsGraph, export_onnx
from autosam_net.jsonio import from_json
from autosam_net.paths import Folders
from autosam_net.training.build import head_shape
from tests.support import Prepared, with_unet

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def run(path: Path, images: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [(entry.name, entry.shape[1:]) for entry in session.get_inputs()] == [("images", list(images.shape[1:]))]
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    return logits


def images_of(model: Model, number: int) -> torch.Tensor:
    size = model.plan.encoding.input_size
    return torch.rand((number, 3, size, size), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def expected_logits(model: Model, images: torch.Tensor) -> list[torch.Tensor]:
    """Return each head's logits by the way that predictions go."""
    encoding = model.plan.encoding
    encoder = load_encoder(encoding.encoder, images.shape[-1], encoding.weights_file, precision="float32")
    embedding = encode_inputs(encoder, images, encoding)
    return [head(embedding) for head in model.heads]


def assert_parity(found: np.ndarray, expected: torch.Tensor) -> None:
    reference = expected.numpy()
    np.testing.assert_allclose(found, reference, rtol=0, atol=TOLERANCE * max(1.0, np.abs(reference).max()))


def test_one_head_on_any_number_of_images(trained: Folders, tmp_path: Path) -> None:
    model = load_model(900, ["cnn"], ["0"], folders=trained)
    difference = export_onnx(model, tmp_path / "m.onnx")
    assert 0 <= difference < 1e-3
    images = images_of(model, 5)
    assert_parity(run(tmp_path / "m.onnx", images), expected_logits(model, images)[0])
    onnx.checker.check_model(tmp_path / "m.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]
    entries = {entry.key: entry.value for entry in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert from_json(type(model.plan), json.loads(entries["autosam_net"]), "").labels == model.plan.labels


@pytest.mark.parametrize("regions", [False, True])
def test_the_logits_of_several_heads_give_their_mean_probability(regions: bool) -> None:
    heads = [nn.Conv2d(3, 4, 1) for _ in range(3)]
    images = torch.rand(2, 3, 8, 8) * 20
    thrice = (RgbSource(0), RgbSource(0), RgbSource(0))
    without_pixels = Encoding("identity", None, 8, 0.0, thrice, maximum_views=1, slice_budget=1, rotation=0.0)
    probability = torch.sigmoid if regions else (lambda logits: torch.softmax(logits, 1))
    with torch.no_grad():
        found = probability(LogitsGraph(nn.Identity(), heads, without_pixels, regions)(images))
        expected = torch.stack([probability(head(images)) for head in heads]).mean(0)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_an_ensemble_in_one_graph(trained: Folders, tmp_path: Path) -> None:
    model = load_model(900, ["cnn", "linear"], folders=trained)
    export_onnx(model, tmp_path / "m.onnx")
    images = images_of(model, 1)
    found = torch.softmax(torch.from_numpy(run(tmp_path / "m.onnx", images)), 1)
    expected = torch.stack([torch.softmax(logits, 1) for logits in expected_logits(model, images)]).mean(0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def real_model(prepared: Prepared, names: Sequence[str], encoder: str, size: int) -> Model:
    """Return new heads on an encoder with its published weights, as if trained."""
    pixels = encoder != "image"
    encoding = replace(prepared.plan.encoding, encoder=encoder, weights=None, input_size=size, pixels=pixels)
    plan = replace(with_unet(prepared.plan), encoding=encoding)
    source = EncoderSource(encoding, "cpu")
    decoder = source.encoder.mask_decoder_weights
    torch.manual_seed(0)
    heads = tuple(build_head(name, head_shape(plan), {}, decoder).eval() for name in names)
    return Model(plan, heads, source)


def test_real_weights_and_sams_own_head(prepared: Prepared, tmp_path: Path) -> None:
    model = real_model(prepared, ["vit"], "lite_medsam", 128)
    export_onnx(model, tmp_path / "m.onnx")
    images = images_of(model, 2)
    assert_parity(run(tmp_path / "m.onnx", images), expected_logits(model, images)[0])


def test_a_network_from_scratch(prepared: Prepared, tmp_path: Path) -> None:
    model = real_model(prepared, ["unet"], "image", 64)
    export_onnx(model, tmp_path / "m.onnx")
    images = images_of(model, 2)
    assert_parity(run(tmp_path / "m.onnx", images), expected_logits(model, images)[0])


class Undecided(nn.Module):
    """A head whose way depends on what it sees, which no graph can hold."""

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        return embedding[:, :4] if embedding.sum() > 0 else embedding[:, 4:8]


def test_a_head_that_cannot_be_exported_is_named(trained: Folders, tmp_path: Path) -> None:
    model = replace(load_model(900, ["linear"], folders=trained), heads=(Undecided(),))
    with pytest.raises(
        ModelError, match=r"^Undecided: cannot be exported to ONNX \(.*\). Choose another head"
    ) as caught:
        export_onnx(model, tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_computes_something_else_is_not_written(
    trained: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "TOLERANCE", -1.0)
    with pytest.raises(ModelError, match=r"m.onnx: the graph's logits differ from torch's by .*; not written"):
        export_onnx(load_model(900, ["linear"], folders=trained), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_is_too_large_or_missing_is_said(
    trained: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(900, ["linear"], ["0"], folders=trained)
    with monkeypatch.context() as patch, pytest.raises(ModelError, match="an ONNX file holds less than 2"):
        patch.setattr(onnx_graph, "LARGEST", 1000)
        export_onnx(model, tmp_path / "m.onnx")
    monkeypatch.setattr(onnx_graph, "PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(UsageError, match=r"no_such_package not installed. Run pip install 'autosam_net\[onnx\]'"):
        export_onnx(model, tmp_path / "m.onnx")
