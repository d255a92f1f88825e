"""SAM's ViT-B at several input sizes: segment-anything's own code beside ours, with the same random weights."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor

from autosam_net.encoders.encoder import load_encoder
from autosam_net.encoders.sam_vit import fit_input_size
from benchmarks.measuring import Row, Setting

NAME = "vit_b"
SIZES = (448, 512, 1024)


def measure(setting: Setting) -> list[Row]:
    """Return the time of an image, theirs in float32 as it is published, and how far ours is from it."""
    checkpoint = write_random_checkpoint(setting.scratch / "sam.pth")
    return [row for size in SIZES for row in _at(setting, checkpoint, size)]


def write_random_checkpoint(path: Path) -> Path:
    """Write SAM with random weights in the published layout; positions are drawn too, which are zero at first."""
    torch.manual_seed(0)
    sam = sam_model_registry[NAME]()
    with torch.no_grad():
        for name, values in sam.image_encoder.named_parameters():
            if "pos" in name:
                values.normal_(0.0, 0.02)
    torch.save(sam.state_dict(), path)
    return path


def published(checkpoint: Path, size: int) -> ImageEncoderViT:
    """Return segment-anything's encoder, its positions interpolated once where the size is another than 1024 px."""
    encoder: ImageEncoderViT = sam_model_registry[NAME](checkpoint=str(checkpoint)).image_encoder
    fit_input_size(encoder, size)
    return encoder.eval()


@torch.no_grad()
def _at(setting: Setting, checkpoint: Path, size: int) -> list[Row]:
    theirs, ours = published(checkpoint, size), load_encoder(NAME, size, checkpoint)
    image = torch.rand(1, 3, size, size)
    pixels: Tensor = image * ours.scale - ours.offset
    names = (f"segment-anything, float32, {size} px", f"ours, {ours.precision} (chosen), {size} px")
    works = (functools.partial(theirs, pixels), functools.partial(ours, image))
    times = setting.in_turn(dict(zip(names, works, strict=True)), rounds=3)
    expected, found = theirs(pixels), ours(image)
    error = float((found - expected).norm() / expected.norm())
    return [
        Row(names[0], "image", times[names[0]]),
        Row(names[1], "image", times[names[1]], times[names[0]] / times[names[1]], "times as fast", ">= 1"),
        Row(f"error of the embedding, {size} px", ratio=error, to="of its norm"),
    ]
