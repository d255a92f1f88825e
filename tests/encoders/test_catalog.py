from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch

from autosam_net.encoders.catalog import ENCODERS, register_encoder
from autosam_net.errors import UsageError


def test_the_promised_encoders_are_there() -> None:
    assert {"lite_medsam", "mobile_sam", "medsam", "vit_b", "vit_l", "vit_h"} <= set(ENCODERS)


@pytest.mark.parametrize("name", ENCODERS.names())
def test_entries_are_consistent(name: str) -> None:
    entry = ENCODERS.get(name)
    assert entry.name == name
    assert entry.input_size % entry.multiple == 0
    assert entry.multiple % entry.stride == 0
    if entry.weights is not None:
        assert re.fullmatch("[0-9a-f]{64}", entry.weights.sha256 or "")
        assert entry.weights.url or entry.weights.package_file


def test_only_the_image_itself_needs_no_weights() -> None:
    assert [name for name in ENCODERS if ENCODERS.get(name).weights is None] == ["image"]


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown encoder 'lite_medsan'; did you mean 'lite_medsam'"):
        ENCODERS.get("lite_medsan")


def test_a_name_can_be_taken_once() -> None:
    with pytest.raises(ValueError, match="registered twice"):
        register_encoder(ENCODERS.get("vit_b"))


def test_the_catalogue_and_the_weights_need_no_torch() -> None:
    code = "import sys, autosam_net.encoders.weights; assert not {'torch', 'pooch', 'requests'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_parameters_of_sams_transformers(name: str) -> None:
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        encoder = sam_model_registry[name]().image_encoder
    millions = sum(parameter.numel() for parameter in encoder.parameters()) / 1e6
    assert millions == pytest.approx(ENCODERS.get(name).parameters, rel=0.01)


def test_parameters_of_tiny_vit() -> None:
    from autosam_net.encoders.tiny_vit import TinyViT

    for name, stem_stride in (("lite_medsam", 1), ("mobile_sam", 4)):
        millions = sum(parameter.numel() for parameter in TinyViT(stem_stride).parameters()) / 1e6
        assert millions == pytest.approx(ENCODERS.get(name).parameters, rel=0.01)
