"""The unadapted SAM: on a fold's held-out cases, prompted from their references, or as a model that takes prompts.

On held-out cases it is a yardstick, not a method.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autosam_net.data.case import PreprocessedCase
from autosam_net.data.dataset import DatasetSpec
from autosam_net.data.plan import Plan, settings_digest
from autosam_net.data.prompts import Prompt, PromptOptions, write_prompts
from autosam_net.data.splits import held_out_cases, load_splits
from autosam_net.embedding.cache import CachedEmbedding
from autosam_net.embedding.source import EncoderSource
from autosam_net.encoders.catalog import ENCODERS
from autosam_net.encoders.weights import weights_sha256
from autosam_net.errors import ModelError
from autosam_net.evaluation.report import Summary, write_summary
from autosam_net.files import alone
from autosam_net.heads.head import build_head
from autosam_net.heads.prompted import ABSENT
from autosam_net.inference.model import Model
from autosam_net.inference.predict import slice_probabilities
from autosam_net.inference.validate import validate_cases
from autosam_net.jsonio import read_sealed, sealed, to_json, write_json
from autosam_net.paths import Folders
from autosam_net.preprocessing.preprocess import cases_folder, load_case
from autosam_net.preprocessing.prompts import draw_prompts, prompts_on_raw_grid
from autosam_net.training.build import head_shape
from autosam_net.training.manifest import run_facts

log = logging.getLogger(__name__)


class Unadapted(nn.Module):
    """SAM's own masks as logits (B, outputs, S, S); where those of classes overlap, the smaller lies on top."""

    def __init__(self, head: nn.Module, regions: bool) -> None:
        super().__init__()
        self.head, self.regions = head, regions

    def forward(self, embedding: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(embedding, prompts)
        if self.regions:
            return logits
        return torch.stack([torch.cat([one[:1], cut_overlaps(one[1:])]) for one in logits])


def cut_overlaps(logits: torch.Tensor) -> torch.Tensor:
    """Return logits `(classes, S, S)` of masks that no longer overlap: where they do, the smaller mask lies on top.

    SAM's logits say where each mask ends, not which mask wins. By the highest logit, the ventricle would lose half of
    its pixels to the mask of the muscle around it, which SAM fills (three cases of ACDC: Dice 0.59 instead of 0.97).
    """
    logits = logits.clone()
    taken = torch.zeros_like(logits[0], dtype=torch.bool)
    inside = logits > 0
    for index in inside.sum((1, 2)).argsort().tolist():
        logits[index][taken] = ABSENT
        taken |= inside[index]
    return logits


def zero_shot_model(plan: Plan, options: PromptOptions, device: str) -> Model:
    """Return SAM as it is, as a model that predicts with prompts; without test-time augmentation and post-processing.

    Args:
        plan: the data set's, for its preprocessing, encoder and labels.
        options: how its prompts will be drawn, or what they will be like.

    Raises:
        WeightsError: the encoder's weights are missing, or have no prompt encoder and mask decoder.
    """
    name = plan.encoding.encoder
    trained_with = ENCODERS.get(name).prompts
    if not set(options.kinds) <= set(trained_with):
        log.warning("%s was trained with %s prompts only", name, " and ".join(trained_with))
    plan = replace(plan, prompts=options)
    source = EncoderSource(plan.encoding, device)
    head = build_head("prompted", head_shape(plan), {}, source.encoder.mask_decoder_weights)
    heads = (Unadapted(head.to(device), plan.label_set.has_regions).eval(),)
    return Model(plan, heads, source, expected_dice=(None,), origins={"zero-shot": source.encoder.weights_sha256})


@dataclass(frozen=True)
class ZeroShotRun:
    """The unadapted SAM on the held-out cases of a fold."""

    dataset: DatasetSpec
    plan: Plan
    fold: str
    options: PromptOptions
    folders: Folders

    @property
    def folder(self) -> Path:
        """Return the fold's folder, in one of the run such as `zero_shot_box`."""
        name = f"zero_shot_{self.options.run_name}"
        return self.folders.results / self.dataset.name / name / f"fold_{self.fold}"

    @property
    def cases(self) -> tuple[str, ...]:
        """Return the cases that the fold holds out.

        Raises:
            UsageError: there is no such fold, or it holds nothing out.
        """
        return held_out_cases(
            load_splits(self.folders.preprocessed / self.dataset.name / "splits_final.json"), self.fold
        )

    @property
    def is_finished(self) -> bool:
        """Return whether it was done before, by the same plan.

        Raises:
            ModelError: it was done by another plan or on other cases.
        """
        if not (self.folder / "validation" / "summary.json").is_file():
            return False
        found, expected = read_sealed(self.folder / "run.json"), to_json(self._settings)
        if differing := [name for name, value in expected.items() if found.get(name) != value]:
            raise ModelError(
                f"{self.folder}: made with other {', '.join(differing)}. Move it away, and it is made anew."
            )
        return True

    @property
    def _settings(self) -> dict[str, Any]:
        """Return what the figures depend on, as run.json has it."""
        plan, encoding = self.plan, self.plan.encoding
        labels = list(plan.labels.items()), plan.regions_class_order
        return {
            "options": self.options,
            "encoder": encoding.encoder,
            "encoder_sha256": weights_sha256(encoding.encoder, encoding.weights_file),
            "settings": settings_digest(
                plan.preprocessing, encoding.input_size, encoding.overlap, encoding.rgb, labels
            ),
            "held_out": self.cases,
        }

    def write_prompts(self, path: Path) -> int:
        """Write the prompts of all held-out cases for `autosam_predict --prompts`; return how many.

        Raises:
            PlanError: a case is not preprocessed.
        """
        prompts: list[Prompt] = []
        for name in self.cases:
            case = load_case(cases_folder(self.dataset, self.folders) / name)
            prompts += prompts_on_raw_grid(draw_prompts(case, self.plan.label_set, self.options), case.properties)
        write_prompts(path, prompts)
        return len(prompts)

    def segment(self, device: str) -> Summary:
        """Write `validation/` and run.json into the folder; return the summary.

        The prompts are drawn from the references: the figures bound what a user reaches who does not know the answer.

        Raises:
            DatasetError: a case has no label file.
            PlanError: a case is not preprocessed.
            UsageError: there is no such fold, or it holds nothing out.
            WeightsError: the encoder's weights are missing, or have no prompt encoder and mask decoder.
        """
        begin, cases = time.monotonic(), self.cases
        model = zero_shot_model(self.plan, self.options, device)

        def slices_of(
            case: PreprocessedCase, entry: Mapping[str, CachedEmbedding], prompts: Sequence[Prompt] | None
        ) -> Iterator[NDArray[np.float32]]:
            labels = model.plan.label_set
            return slice_probabilities(case, model.heads, labels, model.source, entry, prompts=prompts)

        output = self.folder / "validation"
        with alone(output):
            (output / "summary.json").unlink(missing_ok=True)  # of another plan
            summary = validate_cases(self.dataset, model.plan, output, cases, slices_of, device, self.folders)
            seconds = {"zero-shot": round(time.monotonic() - begin, 1)}
            prompts = {"prompts": "drawn from the reference labels"}
            record = {**self._settings, **prompts, "seconds": seconds, **run_facts(device)}
            write_json(self.folder / "run.json", sealed(record))
            write_summary(summary, output)  # last: where it lies, all is done
        return summary
