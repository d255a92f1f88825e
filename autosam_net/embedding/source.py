"""The frozen encoder as commands use it: loaded when first needed, in batches that suit the device."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autosam_net.data.encoding import Encoding
from autosam_net.encoders.encoder import Encoder, Precision, load_encoder, supports_bfloat16
from autosam_net.encoders.split import keep_lower
from autosam_net.heads.pixels import fold_pixels

BATCH = {"cpu": 4, "cuda": 32}  # inputs per encoder pass; on a CPU more only costs memory, on a GPU less idles


@dataclass(frozen=True)
class EncoderSource:
    """A planned encoder that is loaded when first needed, so that a full cache costs no start-up."""

    encoding: Encoding
    device: str
    asked_precision: Precision | None = None

    @property
    def precision(self) -> Precision:
        """Return what the encoder computes in: what was asked for, or what suits this device."""
        return self.asked_precision or ("bfloat16" if supports_bfloat16(self.device) else "float32")

    def __reduce__(self) -> tuple[type[EncoderSource], tuple[Encoding, str, Precision]]:
        """Travel to other processes without the encoder, which is loaded there, in the same precision as here."""
        return EncoderSource, (self.encoding, self.device, self.precision)

    @functools.cached_property
    def encoder(self) -> Encoder:
        """Return the encoder, or its part below `tuned_from`, loaded at the first call."""
        source = self.encoding.source
        encoder = load_encoder(source.encoder, source.input_size, source.weights_file, self.device, self.precision)
        if source.tuned_from is not None:
            keep_lower(encoder, source.tuned_from)
        return encoder

    @property
    def channels(self) -> int:
        """Return the channels of the embeddings, those of folded pixels among them."""
        return self.encoder.channels + self.encoding.source.folded_channels

    def encode(self, inputs: NDArray[np.float32]) -> torch.Tensor:
        """Return what heads get for inputs `(N, 3, S, S)` in [0, 1]: `(N, channels, h, w)`, on the device, float32."""
        return self.encode_tensor(torch.from_numpy(inputs).to(self.device))

    def encode_tensor(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return what `encode` does; inputs in which nothing is, such as tiles of air in a CT, cost no encoder pass."""
        shown = inputs.flatten(1).any(dim=1)
        if shown.all():
            return self._encoded(inputs)
        embedding = self._empty.repeat(len(inputs), 1, 1, 1)
        if shown.any():
            embedding[shown] = self._encoded(inputs[shown])
        return embedding

    @functools.cached_property
    def _empty(self) -> torch.Tensor:
        """Return the embedding `(1, channels, h, w)` of an input of zeros."""
        size = self.encoding.source.input_size
        return self._encoded(torch.zeros(1, 3, size, size, device=self.device))

    def _encoded(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the embeddings; in halves of the batch where the GPU's memory is too small for the whole."""
        return run_in_memory(functools.partial(encode_inputs, self.encoder, encoding=self.encoding.source), inputs)


def run_in_memory(network: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
    """Return `network(*inputs)`, from halves of the batch where the GPU's memory is too small for the whole."""
    try:
        return network(*inputs)
    except torch.cuda.OutOfMemoryError:
        if len(inputs[0]) == 1:
            raise
    torch.cuda.empty_cache()  # outside the except clause, which holds the failed pass
    halves = zip(*(part.tensor_split(2) for part in inputs), strict=True)
    return torch.cat([run_in_memory(network, *half) for half in halves])


def encode_inputs(encoder: nn.Module, images: torch.Tensor, encoding: Encoding) -> torch.Tensor:
    """Return the embeddings `(N, C, h, w)` of images `(N, 3, S, S)`, with their folded pixels where planned."""
    embedding: torch.Tensor = encoder(images)
    if not encoding.pixels:
        return embedding
    pixels = fold_pixels(images[:, encoding.distinct_channels].to(embedding), embedding.shape[-1])
    return torch.cat([embedding, pixels], dim=1)


def batch_size(device: str) -> int:
    """Return how many inputs the encoder takes at once on the device."""
    return BATCH.get(device.split(":")[0], BATCH["cpu"])


def batches_of(count: int, device: str) -> Iterator[range]:
    """Yield 0 .. count - 1 in runs of the size that the device takes at once."""
    size = batch_size(device)
    for start in range(0, count, size):
        yield range(start, min(start + size, count))
