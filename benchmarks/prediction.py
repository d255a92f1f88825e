"""Prediction of whole cases, from file to file, by one head and by ensembles on the same embedding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from autosam_net.data.dataset import training_cases
from autosam_net.embedding.embed import EncoderSource
from autosam_net.heads.head import build_head
from autosam_net.inference.model import Model
from autosam_net.training.build import head_shape
from benchmarks.measuring import Row, Setting

ENSEMBLES = {
    "1 fold of cnn": (("cnn",), 1),
    "5 folds of cnn": (("cnn",), 5),
    "5 folds of cnn, linear and vit": (("cnn", "linear", "vit"), 5),
}
GOALS = dict(zip(ENSEMBLES, ("", "<= 1.3", "<= 1.5"), strict=True))


def measure(setting: Setting) -> list[Row]:
    """Return the time of a case by untrained heads, without test-time augmentation."""
    works = {name: _prediction(setting, *ensemble) for name, ensemble in ENSEMBLES.items()}
    times = setting.in_turn(works, rounds=3)
    single = times["1 fold of cnn"]
    return [Row(name, "case", seconds, seconds / single, "of 1 fold", GOALS[name]) for name, seconds in times.items()]


def untrained_model(setting: Setting, names: tuple[str, ...], folds: int) -> Model:
    """Return a model of heads as they are before training."""
    plan = dataclasses.replace(setting.plan, keep_largest=())
    source = EncoderSource(plan.encoding, "cpu")
    torch.manual_seed(0)
    weights = source.encoder.mask_decoder_weights
    heads = [
        build_head(name, head_shape(plan), plan.configuration(name).settings, weights).eval()
        for name in names
        for _ in range(folds)
    ]
    return Model(plan, tuple(heads), source)


def _prediction(setting: Setting, names: tuple[str, ...], folds: int) -> Callable[[], object]:
    model, case = untrained_model(setting, names, folds), training_cases(setting.dataset)[0]
    return lambda: model.predict_folder(list(case.images), setting.scratch / "predicted")
