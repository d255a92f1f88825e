"""The state of a training run, in one safetensors file that appears whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from autosam_net.encoders.tuning import learnt, load_learnt
from autosam_net.errors import ModelError
from autosam_net.files import atomic_file
from autosam_net.jsonio import canonical

log = logging.getLogger(__name__)

METADATA = "autosam_net"
SEALED = "autosam_net_sealed"  # the same with a checksum, which therefore cannot lose its name unnoticed
CHECKSUM = "sha256"  # key in the metadata


@dataclass
class TrainingState:
    """What changes while training.

    Attributes:
        model: the head, or encoder and head; of a tuned one, a part learns.
        iteration: number of finished iterations.
        epochs: epochs to be done in all (a time limit may lower it).
        log: one row an epoch.
        seconds: spent in training so far.
        sums: of loss and Dice over the iterations of the epoch in hand.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    iteration: int
    epochs: int
    log: list[dict[str, float]]
    seconds: float
    sums: dict[str, float]


def save_checkpoint(path: Path, state: TrainingState, settings: str) -> None:
    """Write the state with the optimiser's moments and torch's generator.

    Args:
        settings: digest of all that the training depends on.
    """
    tensors = {f"head.{name}": tensor for name, tensor in learnt(state.model).items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    tensors["generator"] = torch.get_rng_state()
    progress = {
        "iteration": state.iteration,
        "epochs": state.epochs,
        "log": state.log,
        "seconds": state.seconds,
        "sums": state.sums,
    }
    save_tensors(path, tensors, {"progress": progress, "settings": settings})


def restore_checkpoint(path: Path, state: TrainingState, settings: str) -> None:
    """Put a written state into `state` and torch's generator.

    Args:
        settings: as in `save_checkpoint`.

    Raises:
        ModelError: the file is damaged, or of a training with other settings.
    """
    tensors, metadata = load_tensors(path)
    if metadata.get("settings") != settings:
        raise ModelError(
            f"{path}: this training began with another plan, other cases or other weights of the encoder. "
            "Go back to them, or begin anew with --overwrite."
        )
    load_learnt(state.model, _below(tensors, "head."))
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in _below(tensors, "optimizer.").items():
        index, key = name.split(".", 1)
        moments.setdefault(int(index), {})[key] = tensor
    state.optimizer.load_state_dict(state.optimizer.state_dict() | {"state": moments})
    torch.set_rng_state(tensors["generator"])
    for name, value in metadata["progress"].items():
        setattr(state, name, value)


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and metadata to a safetensors file with a checksum, atomically; equal content makes equal bytes.

    The metadata are one text, since safetensors writes several in an order that differs from run to run.

    Raises:
        OSError: it cannot be written.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = {**metadata, CHECKSUM: tensors_sha256(contiguous, metadata)}
    with atomic_file(path) as temporary:
        try:
            save_file(contiguous, temporary, {SEALED: canonical(content)})
        except SafetensorError as error:  # it says the number of the system's error in words only
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error


def tensors_sha256(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> str:
    """Return the sha256 (hexadecimal) over tensors, their names and types, and metadata."""
    digest = hashlib.sha256(canonical(metadata).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(canonical([name, str(tensor.dtype), tuple(tensor.shape)]).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors and the metadata of a file of `save_tensors`.

    Raises:
        ModelError: the file is missing, damaged or of another program.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file. Train this fold first.") from None
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: damaged ({error}). Train this fold again with --overwrite.") from error
    try:
        content = json.loads(metadata[SEALED] if SEALED in metadata else metadata[METADATA])
    except (KeyError, json.JSONDecodeError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: not written by this version of autosam_net. Train this fold again with --overwrite.")
    log.debug("read: %s", path)
    checksum = content.pop(CHECKSUM, None)
    if checksum is None and SEALED not in metadata:
        log.warning("%s: of an earlier version, without a checksum; it is used as it is", path)
    elif checksum != tensors_sha256(tensors, content):
        raise ModelError(f"{path}: damaged (its checksum is wrong). Train this fold again with --overwrite.")
    return tensors, content


def _below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
