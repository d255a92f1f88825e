"""The network that a configuration trains: a head on embeddings, or encoder and head on slices."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors.torch import load_file
from torch import nn

from autosam_net.data.configuration import Tuning
from autosam_net.data.encoding import Encoding
from autosam_net.data.plan import Plan
from autosam_net.embedding.source import EncoderSource, encode_inputs
from autosam_net.encoders.catalog import ENCODERS
from autosam_net.encoders.encoder import Encoder, load_encoder
from autosam_net.encoders.pretrained import PretrainedRecord
from autosam_net.encoders.split import keep_upper
from autosam_net.encoders.tuning import load_learnt, tune_encoder, tune_head
from autosam_net.encoders.weights import file_sha256
from autosam_net.errors import WeightsError
from autosam_net.heads.head import HeadShape, build_head


def head_shape(plan: Plan) -> HeadShape:
    """Return what a head of this plan takes and gives."""
    entry, encoding = ENCODERS.get(plan.encoding.encoder), plan.encoding
    return HeadShape(plan.label_set.outputs, entry.channels, entry.stride, encoding.input_size, encoding.pixel_channels)


def begin_with(head: nn.Module, record: PretrainedRecord) -> None:
    """Put pretrained weights into a head; what they do not name stays as it is.

    Raises:
        WeightsError: they are missing, not those of the record, or of another shape.
    """
    file = record.file
    if not file.is_file() or file_sha256(file) != record.sha256:
        raise WeightsError(f"{file}: missing, or not what its record says. Make it again with autosam_pretrain.")
    try:
        unknown = head.load_state_dict(load_file(file), strict=False).unexpected_keys
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{file}: of a head with other settings ({reason}). Pretrain this one.") from error
    assert not unknown, "a part of a head has the head's names"


class TunedModel(nn.Module):
    """An encoder and its head in one, from inputs (B, 3, S, S) in [0, 1] to logits (B, outputs, S, S).

    Where only the encoder's upper part is here, it takes the lower part's features, and the folded pixels behind them.
    What else the head takes, such as prompts, goes along with them.
    """

    def __init__(self, encoder: Encoder, head: nn.Module, encoding: Encoding) -> None:
        super().__init__()
        self.encoder, self.head, self.encoding = encoder, head, encoding

    def forward(self, inputs: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self._embedding(inputs), *others)
        return logits

    def _embedding(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.encoding.tuned_from is None:
            return encode_inputs(self.encoder, inputs, self.encoding)
        features, pixels = inputs.tensor_split([inputs.shape[1] - self.encoding.folded_channels], dim=1)
        return torch.cat([self.encoder(features), pixels], dim=1)


def base_encoder(plan: Plan, source: EncoderSource) -> Encoder:
    """Return the encoder that a head starts from: the frozen one, or one of its own, in float32, that is to learn.

    Raises:
        WeightsError: weights are missing.
    """
    encoding = plan.encoding
    if not encoding.tuned:
        return source.encoder
    return load_encoder(encoding.encoder, encoding.input_size, encoding.weights_file, source.device, "float32")


def build_model(
    plan: Plan,
    head: str,
    settings: Mapping[str, float],
    tuning: Tuning | None,
    encoder: Encoder,
    start: Mapping[str, torch.Tensor] | None = None,
) -> nn.Module:
    """Return a head, or a `TunedModel` where the encoder learns, as it is before any training.

    Args:
        plan: as the configuration follows it.
        encoder: of `base_encoder`; its device is taken.
        start: tensors of a trained head, whose training goes on.

    Raises:
        PlanError: a setting does not fit the head or the encoder.
        WeightsError: the head needs decoder weights that the encoder has not.
    """
    device = encoder.scale.device
    network = build_head(head, head_shape(plan), settings, encoder.mask_decoder_weights)
    if start is not None:
        load_learnt(network, start)
    if tuning is None:
        return network.to(device)
    tune_head(network, tuning)
    if not tuning.of_encoder:
        return network.to(device)
    tune_encoder(encoder, tuning)
    if plan.encoding.tuned_from is not None:
        keep_upper(encoder, plan.encoding.tuned_from)
    return TunedModel(encoder, network, plan.encoding).to(device)
