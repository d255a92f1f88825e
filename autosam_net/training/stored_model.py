"""What a training leaves: model.safetensors with what its head means, and run.json."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from autosam_net.data.plan import Plan
from autosam_net.data.splits import Split
from autosam_net.encoders.tuning import ENCODER, count_parameters, learnt
from autosam_net.encoders.weights import weights_sha256
from autosam_net.jsonio import to_json
from autosam_net.training.checkpoint import TrainingState, save_tensors, tensors_sha256
from autosam_net.training.fold_training import FoldTraining, digest_with_length
from autosam_net.training.manifest import run_facts

MODEL_VERSION = 2


def save_model(run: FoldTraining, state: TrainingState) -> None:
    """Write model.safetensors of the fold, which tells what the encoder and the plan must be to use it."""
    save_tensors(run.folder / "model.safetensors", _stored(run, state.model), _head_metadata(run))


def manifest_of(
    run: FoldTraining, split: Split, views: int, state: TrainingState, planned_epochs: int, encoding_seconds: float
) -> dict[str, Any]:
    """Return what run.json says of a training that has ended."""
    return {
        "training": digest_with_length(run.digest, run.settings, run.options),
        "head_sha256": tensors_sha256(_stored(run, state.model), _head_metadata(run)),
        "trained_on": split.train,
        "unlabelled": () if run.lessons is None else run.lessons.cases,
        "held_out": split.val,
        "views": views,
        "options": to_json(run.options),
        "settings": to_json(run.settings),
        **_encoder_facts(run.plan),
        **({} if (part := run.pretrained) is None else {"pretrained": {"name": part.name, "sha256": part.sha256}}),
        "parameters": count_parameters(state.model),
        "precision": run.source.precision,
        "processes": run.team.share.count,
        "epochs": state.epochs,
        "planned_epochs": planned_epochs,
        "iterations": state.iteration,
        "seconds": {"encoding": round(encoding_seconds, 1), "training": round(state.seconds, 1)},
        **run_facts(run.options.device),
    }


def trained_by(plan: Plan) -> dict[str, Any]:
    """Return the decisions without which a head's outputs mean nothing; they stand in its file too."""
    encoding = plan.encoding
    return {
        "preprocessing": plan.preprocessing,
        "inputs": (encoding.encoder, encoding.input_size, encoding.overlap, encoding.rgb, encoding.pixels),
        "labels": [*plan.labels.items()],
        "regions_class_order": plan.regions_class_order,
    }


def _stored(run: FoldTraining, model: nn.Module) -> dict[str, torch.Tensor]:
    """Return what the encoder's checkpoint cannot give back: what learnt, and all of a head that was trained before."""
    tensors = learnt(model)
    if run.start is not None:
        tensors |= {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(ENCODER)}
    return tensors


def _head_metadata(run: FoldTraining) -> dict[str, Any]:
    return {
        "version": MODEL_VERSION,
        "head": run.settings.head,
        "settings": run.settings.settings,
        **({} if run.settings.tuning is None else {"tuning": run.settings.tuning}),
        **_encoder_facts(run.plan),
        **trained_by(run.plan),
    }


def _encoder_facts(plan: Plan) -> dict[str, str]:
    sha256 = weights_sha256(plan.encoding.encoder, plan.encoding.weights_file)
    return {"encoder": plan.encoding.encoder, "encoder_sha256": sha256}
