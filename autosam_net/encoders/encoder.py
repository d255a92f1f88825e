"""The frozen encoder, the only way from images to embeddings."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from autosam_net.encoders.catalog import ENCODERS, EncoderEntry
from autosam_net.encoders.weights import find_weights, weights_sha256
from autosam_net.errors import PlanError, WeightsError

log = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16"]

IMAGE_ENCODER = "image_encoder."
DECODER = ("mask_decoder.", "prompt_encoder.")  # what heads start from, and what prompts are answered with


class Encoder(nn.Module):
    """A frozen network from images (B, 3, S, S) in [0, 1] to embeddings (B, channels, S / stride, S / stride).

    Frozen by construction: no parameter asks for a gradient, `train()` stays in eval mode (in training mode a
    batch norm would change its statistics) and the pass runs without a graph. `tuning` lets it learn for a while.

    Attributes:
        learns: whether the pass belongs to a training: in the caller's graph and autocast.
        takes_features: whether it is the upper part of a network, which takes what the lower one gives (see `split`).
        input_size: S in pixels.
        weights_sha256: of the checkpoint's file, "none" without one.
        precision: of weights and computation; images and embeddings are float32 in either.
        mask_decoder_weights: the checkpoint's mask decoder and prompt encoder, under SAM's names, float32 on the CPU.
    """

    scale: Tensor
    offset: Tensor

    def __init__(
        self,
        entry: EncoderEntry,
        network: nn.Module,
        input_size: int,
        precision: Precision,
        weights_sha256: str,
        mask_decoder_weights: dict[str, Tensor],
    ) -> None:
        super().__init__()
        self.name, self.stride, self.channels = entry.name, entry.stride, entry.channels
        self.input_size, self.weights_sha256 = input_size, weights_sha256
        self.mask_decoder_weights = mask_decoder_weights
        self.network, self.learns, self.takes_features = network, False, False
        scale = torch.tensor(entry.pixel_range) / torch.tensor(entry.pixel_std)
        offset = torch.tensor(entry.pixel_mean) / torch.tensor(entry.pixel_std)
        self.register_buffer("scale", scale.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", offset.view(1, 3, 1, 1), persistent=False)
        self.set_precision(precision)
        self.requires_grad_(False)
        self.train(False)

    def set_precision(self, precision: Precision) -> None:
        """Round the weights, and compute in `precision` from now on."""
        self.precision = precision
        self.network.to(getattr(torch, precision)).to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        inputs = images if self.takes_features else self._pixels(images)
        inputs = inputs.to(getattr(torch, self.precision), memory_format=torch.channels_last)
        if self.learns:
            return self.network(inputs).float()  # (B, channels, S / stride, S / stride)
        # not inference_mode, whose tensors could not enter a head's graph
        with torch.no_grad(), _own_precision(inputs.device.type):
            return self.network(inputs).float()

    def _pixels(self, images: Tensor) -> Tensor:
        expected = (3, self.input_size, self.input_size)
        assert images.shape[1:] == expected, f"images are {tuple(images.shape[1:])}, {self.name} takes {expected}"
        return images.to(self.scale.device, torch.float32) * self.scale - self.offset

    def train(self, mode: bool = True) -> Encoder:
        """Stay in eval mode, whatever is asked."""
        return super().train(False)


def _own_precision(kind: str) -> AbstractContextManager[object]:
    """Switch a caller's autocast off; without one, nothing is switched, so that a graph can be traced."""
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def load_encoder(
    name: str,
    input_size: int | None = None,
    weights: Path | None = None,
    device: str | torch.device = "cpu",
    precision: Precision | None = None,
) -> Encoder:
    """Return the encoder `name` with its published weights, frozen, on `device`.

    Args:
        input_size: pixels of the square input; None for the size it was trained with.
        weights: a checkpoint in the published layout that replaces the published one.
        precision: None for bfloat16 where the device computes in it (half the time of float32), else float32.

    Raises:
        UsageError: no encoder of that name.
        PlanError: an input size that does not fit.
        WeightsError: weights are missing, damaged, or not this encoder's.
    """
    entry = ENCODERS.get(name)
    input_size = entry.input_size if input_size is None else input_size
    if input_size <= 0 or input_size % entry.multiple:
        raise PlanError(f"{name}: input size {input_size} is no multiple of {entry.multiple} px; correct input_size.")
    precision = precision or ("bfloat16" if supports_bfloat16(device) else "float32")
    path = find_weights(name, weights)
    if path is None:
        precision = "float32"  # nothing is computed, so nothing is saved by rounding
    state = {} if path is None else read_checkpoint(path)
    network = _build(entry, input_size, state, path)
    decoder = {key: value.float() for key, value in state.items() if key.startswith(DECODER)}
    encoder = Encoder(entry, network, input_size, precision, weights_sha256(name, weights), decoder)
    log.debug("encoder %s: read %s; %d px, %s on %s", name, path, input_size, precision, device)
    return encoder.to(device)


def supports_bfloat16(device: str | torch.device) -> bool:
    """Return whether `device` has instructions for bfloat16; without them it is slower than float32."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":  # these have no public name in most versions of torch
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return False


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the state dict of a checkpoint in SAM's layout, of torch or of safetensors; only tensors are unpickled.

    Raises:
        WeightsError: the file is damaged or holds something else.
    """
    try:
        safe = path.suffix == ".safetensors"
        content: Any = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        raise WeightsError(f"{path}: not a checkpoint of torch, or a damaged one. Get the file again.") from error
    for wrapper in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not any(str(key).startswith(IMAGE_ENCODER) for key in content):
        raise WeightsError(f"{path}: no weights named {IMAGE_ENCODER}*, as in SAM's checkpoints. Give another file.")
    return dict(content)


def changed_checkpoint(encoder: Encoder, checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the checkpoint that an encoder was loaded from, with the weights that its network has by now.

    What has another shape in the network, such as positions that were fitted to the input size, stays as it was. A
    network that is not laid out as its checkpoint says by `published_weights()` what belongs there.

    Raises:
        WeightsError: the network has weights that the checkpoint has not.
    """
    own = getattr(encoder.network, "published_weights", encoder.network.state_dict)()
    for name in own:
        if IMAGE_ENCODER + name not in checkpoint:
            raise WeightsError(f"{encoder.name}: {name} is not in its checkpoint, so that no other can be written.")
    changed = {IMAGE_ENCODER + name: tensor.detach().cpu() for name, tensor in own.items()}
    same = {key: tensor for key, tensor in changed.items() if tensor.shape == checkpoint[key].shape}
    return {**checkpoint, **same}


def _build(entry: EncoderEntry, input_size: int, state: Mapping[str, Tensor], path: Path | None) -> nn.Module:
    own = {key.removeprefix(IMAGE_ENCODER): value for key, value in state.items() if key.startswith(IMAGE_ENCODER)}
    try:
        return entry.build(input_size, own)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path}: these are not weights of {entry.name} ({reason}). Give another file.") from error
