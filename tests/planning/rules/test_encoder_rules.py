"""The encoder goes by device, weights and memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autosam_net.errors import UsageError
from planning.rules.encoder import choose_encoder, explain_precision
from tests.planning.figures import machine


def test_the_encoder_goes_by_device_and_weights() -> None:
    assert choose_encoder(machine(), None)[0] == "lite_medsam"
    assert choose_encoder(machine("cuda"), None)[0] == "lite_medsam"
    assert choose_encoder(machine("cuda", local_weights=("vit_b",)), None)[0] == "vit_b"
    assert choose_encoder(machine("cuda", local_weights=("vit_b",), gpu_mib=4000.0), None)[0] == "lite_medsam"
    name, reason = choose_encoder(machine(), "vit_h")
    assert name == "vit_h"
    assert "--encoder" in reason
    with pytest.raises(UsageError, match="unknown encoder 'vit_x'; did you mean"):
        choose_encoder(machine(), "vit_x")


def test_the_slices_themselves_are_no_encoder_to_plan_for() -> None:
    with pytest.raises(UsageError, match=r"--encoder image: no encoder: the slices themselves, .*unet take it by"):
        choose_encoder(machine(), "image")


def test_precision_is_explained() -> None:
    assert explain_precision(machine()).startswith("bfloat16")
    assert explain_precision(replace(machine(), bfloat16=False)).startswith("float32")
