"""A trained head in model.safetensors: read, compared with the plan, and built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autosam_net.data.configuration import Tuning
from autosam_net.data.plan import Plan
from autosam_net.embedding.source import EncoderSource
from autosam_net.encoders.tuning import ENCODER, HEAD, learnt, load_learnt, settle_encoder, tune_head
from autosam_net.encoders.weights import weights_sha256
from autosam_net.errors import ModelError, PlanError
from autosam_net.heads.head import build_head, takes_prompts
from autosam_net.jsonio import from_json, read_sealed, to_json
from autosam_net.training.build import base_encoder, build_model, head_shape
from autosam_net.training.check_plan import check_tuning
from autosam_net.training.checkpoint import load_tensors, tensors_sha256
from autosam_net.training.stored_model import MODEL_VERSION, trained_by

HEAD_METADATA: dict[str, Any] = {
    "head": str,
    "settings": dict[str, float],
    "encoder": str,
    "encoder_sha256": str,
    "tuning": Tuning | None,
}


def load_head(file: Path, plan: Plan, source: EncoderSource) -> nn.Module:
    """Return a trained head in evaluation mode, with the encoder that was tuned with it, if one was.

    Raises:
        ModelError: the file is damaged, or was trained by another plan or on an encoder with other weights.
    """
    tensors, metadata = read_head(file, plan)
    name, settings, tuning = metadata["head"], metadata["settings"], _read_tuning(metadata)
    if (tuning is not None and tuning.of_encoder) != plan.encoding.tuned:
        raise ModelError(
            f"{file}: its plan.json says otherwise whether it has tuned the encoder. Put back the right one."
        )
    if takes_prompts(name) != (plan.prompts is not None):
        raise ModelError(f"{file}: its plan.json says otherwise whether it needs prompts. Put back the right one.")
    check_tuning(tuning, name, f"{file}: tuning")
    encoder = base_encoder(plan, source)
    try:
        _check_shapes(tensors, name, settings, tuning, plan, encoder.mask_decoder_weights)
        model = build_model(plan, name, settings, tuning, encoder)
        load_learnt(model, tensors)
    except RuntimeError as error:
        raise ModelError(f"{file}: not the weights of a {name} head; train this fold again") from error
    if plan.encoding.tuned:
        settle_encoder(encoder, source.precision)
    return model.eval()


def _read_tuning(metadata: Mapping[str, Any]) -> Tuning | None:
    """Return how a trained head's pretrained parts were tuned, None for a whole head over a frozen encoder."""
    tuning: Tuning | None = from_json(HEAD_METADATA["tuning"], metadata.get("tuning"), "tuning")
    return tuning


def _check_shapes(
    tensors: Mapping[str, torch.Tensor],
    name: str,
    settings: Mapping[str, float],
    tuning: Tuning | None,
    plan: Plan,
    weights: Mapping[str, torch.Tensor],
) -> None:
    """Compare a head's tensors with those it is to be built with, before these take memory: settings may be forged.

    Raises:
        RuntimeError: they differ.
    """
    with torch.device("meta"):
        without_memory = {name: tensor.to("meta") for name, tensor in weights.items()}
        planned = build_head(name, head_shape(plan), settings, without_memory)
        if tuning is not None:
            tune_head(planned, tuning)
    found = {name.removeprefix(HEAD): t.shape for name, t in tensors.items() if not name.startswith(ENCODER)}
    shapes = {name: tensor.shape for name, tensor in planned.state_dict().items()}
    if learnt(planned).keys() - found.keys() or not found.items() <= shapes.items():
        raise RuntimeError("other tensors than such a head has")


def read_head(file: Path, plan: Plan) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors and metadata of a trained head; the encoder need not be there.

    Raises:
        ModelError: the file is damaged, or was trained by another plan or on an encoder with other weights.
    """
    tensors, metadata = load_tensors(file)
    _check_metadata(file, metadata, plan)
    run = file.with_name("run.json")
    recorded = read_sealed(run).get("head_sha256") if run.is_file() else None
    if recorded not in (None, tensors_sha256(tensors, metadata)):
        raise ModelError(
            f"{file}: not the head that {run.name} beside it tells of. Put back the right one, or train it."
        )
    return tensors, metadata


def _check_metadata(file: Path, metadata: Mapping[str, Any], plan: Plan) -> None:
    if (found := metadata.get("version")) != MODEL_VERSION:
        raise ModelError(f"{file}: model of version {found}, expected {MODEL_VERSION}. Train this fold again.")
    for key, kind in HEAD_METADATA.items():
        try:
            from_json(kind, metadata.get(key), f"{file}: {key}")
        except PlanError as error:
            raise ModelError(f"{error}. Train this fold again.") from error
    expected = weights_sha256(plan.encoding.encoder, plan.encoding.weights_file)
    if metadata["encoder_sha256"] != expected:
        raise ModelError(
            f"{file}: trained on {metadata['encoder']} with weights {metadata['encoder_sha256'][:12]}, "
            f"but the weights found are {expected[:12]}. Set the plan's encoding.weights to the right file."
        )
    for key, value in trained_by(plan).items():
        if metadata.get(key) != to_json(value):
            raise ModelError(
                f"{file}: trained by another plan: {key} was {metadata.get(key)}, is now {to_json(value)}. "
                "Put back the plan.json that training wrote, or train this fold again."
            )
