"""The unet head: a U-Net trained from scratch on the slices themselves, the yardstick of all that is pretrained."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

from torch import Tensor, nn

from autosam_net.errors import PlanError
from autosam_net.heads.head import HEADS, HeadShape, Recipe

LEVELS = 5  # 16 x 16 pixels at the bottom for an input of 256


@HEADS.register("unet")
class UnetHead(nn.Module):
    """A U-Net (Ronneberger, Fischer and Brox, MICCAI 2015) of nnU-Net's blocks, as MONAI has them (1.9 M parameters).

    Blocks of two convolutions, each with instance norm and leaky ReLU, strides instead of pooling, transposed
    convolutions up (Isensee et al., Nature Methods 18, 2021). 16 to 256 channels are those of the U-Net with which the
    literature on few labels compares (Luo et al., SSL4MIS, github.com/HiLab-git/SSL4MIS).

    It sees the same augmented views as the heads, drawn from the same seeds. The number of epochs gives it the time
    that encoding and the cnn head take together for one labelled patient of ACDC: in bfloat16 a step of 8 slices of
    256 px takes 0.82 s of a core, one of cnn 0.31 s, and encoding six views of the patient 120 s, so that 300 steps
    cost what 400 of cnn and the encoding do. With more patients encoding grows faster than the steps: --epochs.

    Settings:
        width: channels at the input's resolution, doubled at each of four halvings.
        dropout: of whole channels after every convolution.
    """

    recipe: ClassVar[Recipe] = Recipe(
        settings={"width": 16.0, "dropout": 0.0},
        batch_size=8,
        epochs=6,
        iterations=50,
        learning_rate=2e-3,
        weight_decay=1e-2,
        encoder="image",
    )

    def __init__(self, shape: HeadShape, settings: Mapping[str, float], decoder_weights: Mapping[str, Tensor]) -> None:
        from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetUpBlock  # MONAI takes seconds to import

        super().__init__()
        width = _checked_width(shape, settings["width"])
        widths = [width * 2**level for level in range(LEVELS)]
        common: dict[str, Any] = {"norm_name": ("instance", {"affine": True}), "dropout": settings["dropout"]}
        steps = pairwise([shape.channels, *widths])
        self.down = nn.ModuleList(
            UnetBasicBlock(2, inputs, outputs, 3, stride=2 if level else 1, **common)
            for level, (inputs, outputs) in enumerate(steps)
        )
        self.up = nn.ModuleList(
            UnetUpBlock(2, below, here, 3, stride=1, upsample_kernel_size=2, **common)
            for below, here in pairwise(reversed(widths))
        )
        self.classify = nn.Conv2d(width, shape.outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        levels = [images]
        for block in self.down:
            levels.append(block(levels[-1]))  # (B, width 2^level, S / 2^level, S / 2^level)
        features = levels.pop()
        for block in self.up:
            features = block(features, levels.pop())
        return self.classify(features)  # (B, outputs, S, S)


def _checked_width(shape: HeadShape, width: float) -> int:
    if shape.stride != 1:
        raise PlanError(
            f"head 'unet' takes slices, not embeddings of stride {shape.stride}; "
            'set "encoder" of its configuration in plan.json to "image".'
        )
    if width < 1 or width != int(width):
        raise PlanError(f"head 'unet': width is {width:g}, expected a whole number above 0; correct it.")
    return int(width)
