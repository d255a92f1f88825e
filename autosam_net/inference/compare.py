"""Compare trained heads and pairs of them on the cases that their folds held out, and choose the best."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.dataset import DatasetSpec, label_files
from autosam_net.data.labels import LabelSet
from autosam_net.data.plan import Plan, load_plan
from autosam_net.embedding.embed import embed_poses
from autosam_net.embedding.source import EncoderSource
from autosam_net.errors import ModelError, UsageError
from autosam_net.evaluation.metrics import dice_of_classes
from autosam_net.evaluation.postprocessing import keep_largest
from autosam_net.evaluation.report import check_pair, workers_for
from autosam_net.evaluation.selection import DiceTable
from autosam_net.imageio import read_label, write_label
from autosam_net.inference.choose import check_components, choose_folds, choose_models, models_of
from autosam_net.inference.predict import probabilities_of_each, resized
from autosam_net.inference.trained_head import load_head
from autosam_net.inference.validate import validate_fold
from autosam_net.jsonio import read_sealed
from autosam_net.parallel import map_cases, progress
from autosam_net.paths import Folders
from autosam_net.preprocessing.geometry import restore
from autosam_net.preprocessing.preprocess import cases_folder, load_case
from autosam_net.training.cases import patients_of
from autosam_net.training.check_plan import load_checked_plan
from autosam_net.training.run import ModelFolder, fit_together

log = logging.getLogger(__name__)

Candidate = tuple[ModelFolder, ...]
"""One model, or two whose probabilities are averaged."""


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        models: by the size of their heads, the smallest first.
        held_out: fold -> cases.
    """

    dataset: DatasetSpec
    plan: Plan
    models: tuple[ModelFolder, ...]
    held_out: Mapping[str, tuple[str, ...]]
    folders: Folders

    @property
    def candidates(self) -> list[Candidate]:
        """Return every model and every pair, the simpler first."""
        return [candidate for number in (1, 2) for candidate in combinations(self.models, number)]

    def predictions(self, candidate: Candidate, fold: str) -> dict[str, Path]:
        """Return case -> file of what a candidate predicts for each case that a fold held out."""
        if len(candidate) == 1:
            folder = candidate[0].fold(fold) / "validation"
        else:
            pair = "+".join(model.path.name for model in candidate)
            folder = self.folders.results / self.dataset.name / "ensembles" / pair / f"fold_{fold}"
        return {case: folder / (case + self.dataset.file_ending) for case in self.held_out[fold]}


def plan_comparison(
    dataset: DatasetSpec, configurations: Sequence[str] | None, folds: Sequence[str] | None, folders: Folders
) -> Comparison:
    """Return what is to be compared; nothing is computed.

    Args:
        configurations: names of model folders; if None, the plan's configurations that are trained.
        folds: if None, those on which all of them are trained.

    Raises:
        ModelError: nothing is trained, or what is asked for cannot be compared.
        UsageError: a fold is not trained, or holds nothing out.
    """
    today = load_checked_plan(folders.preprocessed / dataset.name / "plan.json")
    models = _chosen_models(dataset, today, configurations, folders)
    _refuse_prompted(models)
    plan = _shared_plan(models, today)
    common = _common_folds(models, folds)
    ordered = sorted(models, key=lambda model: _weights(model, common[0]).stat().st_size)
    return Comparison(dataset, plan, tuple(ordered), _held_out(ordered, common), folders)


def _chosen_models(
    dataset: DatasetSpec, today: Plan, names: Sequence[str] | None, folders: Folders
) -> list[ModelFolder]:
    models = models_of(dataset.name, folders)
    if names is not None:
        return choose_models(models, list(dict.fromkeys(names)), dataset.name)
    trained = [(model, today.configurations.get(model.path.name)) for model in models]
    plain = [model for model, own in trained if own is not None and own.prompts is None]
    chosen = [model for model in plain if fit_together(load_plan(model.plan_file), today)]
    for model in plain:
        if model not in chosen:
            log.warning("%s does not fit together with the plan of today, and is left out", model.name)
    if not chosen:
        listed = ", ".join(model.path.name for model in models)
        raise ModelError(f"{dataset.name}: no configuration of the plan is trained; choose with -c among {listed}.")
    return chosen


def _refuse_prompted(models: Sequence[ModelFolder]) -> None:
    for model in models:
        if load_plan(model.plan_file).prompts is not None:
            raise ModelError(
                f"{model.name}: needs prompts, so that it predicts with no other head and is not compared with any. "
                "Leave it out with -c."
            )


def _shared_plan(models: Sequence[ModelFolder], today: Plan) -> Plan:
    """Return the plan of the models, which fit together, and the preprocessed cases with them."""
    plans = [load_checked_plan(model.plan_file) for model in models]
    for model, plan in zip(models, plans, strict=True):
        if (plan.preprocessing, plan.label_set) != (today.preprocessing, today.label_set):
            raise ModelError(
                f"{model.name} was trained on cases that were preprocessed by another plan. Go back to that plan, "
                "plan.json in its folder, or train it again."
            )
        if not fit_together(plan, plans[0]):
            raise ModelError(
                f"{model.name} and {models[0].name} were trained by different plans, and do not predict together. "
                "Compare each alone."
            )
    check_components(models, plans)
    return plans[0]


def _common_folds(models: Sequence[ModelFolder], folds: Sequence[str] | None) -> list[str]:
    if folds is not None:
        return sorted({fold for model in models for fold in choose_folds(model, folds)})
    trained = [set(model.trained_folds()) - {"all"} for model in models]
    if common := set.intersection(*trained):
        return sorted(common)
    listed = "; ".join(f"{model.path.name}: {', '.join(model.trained_folds())}" for model in models)
    raise ModelError(
        f"{models[0].path.parent.name}: no fold with held-out cases is trained for all of these ({listed}). Train the "
        "same folds of each, or choose fewer with -c."
    )


def _held_out(models: Sequence[ModelFolder], folds: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return fold -> cases as the trainings recorded them."""
    held_out: dict[str, tuple[str, ...]] = {}
    for fold in folds:
        for model in models:
            found = tuple(read_sealed(model.fold(fold) / "run.json")["held_out"])
            if not found:
                raise UsageError(f"{model.name}: fold {fold} holds no case out, so that nothing can be compared on it")
            if held_out.setdefault(fold, found) != found:
                raise ModelError(
                    f"{model.name} and {models[0].name} held out other cases in fold {fold}. Train one of them again "
                    "with --overwrite, or leave it out with -c."
                )
    return held_out


def predict_held_out(comparison: Comparison, device: str) -> None:
    """Write what every candidate predicts for the cases that each fold held out, by that fold's heads only.

    What was written after the heads were trained and their plans were changed last is kept.
    """
    for fold, cases in comparison.held_out.items():
        for model in comparison.models:
            summary = model.fold(fold) / "validation" / "summary.json"
            files = [summary, *comparison.predictions((model,), fold).values()]
            if not _are_newer(files, [model], fold):
                log.info("%s fold %s: validating", model.name, fold)
                validate_fold(comparison.dataset, comparison.plan, model.fold(fold), cases, device, comparison.folders)
        _predict_pairs(comparison, fold, device)


def _predict_pairs(comparison: Comparison, fold: str, device: str) -> None:
    dataset, plan, folders = comparison.dataset, comparison.plan, comparison.folders
    files = {pair: comparison.predictions(pair, fold) for pair in combinations(comparison.models, 2)}
    todo = [
        case
        for case in comparison.held_out[fold]
        if not all(_are_newer([names[case]], pair, fold) for pair, names in files.items())
    ]
    if not todo:
        return
    source = EncoderSource(plan.encoding, device)
    heads = [load_head(_weights(model, fold), plan, source) for model in comparison.models]
    entries = embed_poses(dataset, plan, folders, todo, plan.encoding.all_poses, device)
    pairs = list(zip(todo, entries, strict=True))
    for name, entry in progress(pairs, f"pairs, fold {fold}", len(todo), name=lambda pair: pair[0]):
        case = load_case(cases_folder(dataset, folders) / name)
        slices = probabilities_of_each(case, heads, plan.label_set, source, entry, plan.encoding.poses)
        decoded = _decode_pairs(slices, plan.label_set, case.properties.cropped_shape[1:])
        for names, labels in zip(files.values(), decoded, strict=True):
            whole = keep_largest(restore(labels, case.properties), plan.largest_only())
            write_label(names[name], whole, case.properties.geometry)


def _decode_pairs(
    slices: Iterable[Sequence[NDArray[np.float32]]], labels: LabelSet, plane: tuple[int, ...]
) -> list[NDArray[np.integer]]:
    """Return the label map `(Z, Y, X)` of each pair of heads; probabilities are held for one slice at a time."""
    decoded = [
        [labels.decode(resized(np.mean(pair, axis=0), plane)) for pair in combinations(probabilities, 2)]
        for probabilities in slices
    ]
    return [np.stack(planes) for planes in zip(*decoded, strict=True)]


def _are_newer(files: Iterable[Path], models: Iterable[ModelFolder], fold: str) -> bool:
    origins = [origin for model in models for origin in (_weights(model, fold), model.plan_file)]
    changed = max(origin.stat().st_mtime_ns for origin in origins)
    return all(file.is_file() and file.stat().st_mtime_ns >= changed for file in files)


def _weights(model: ModelFolder, fold: str) -> Path:
    return model.fold(fold) / "model.safetensors"


@dataclass(frozen=True)
class _HeldOutCase:
    name: str
    reference: Path
    predictions: tuple[Path, ...]


def measure(comparison: Comparison) -> DiceTable:
    """Return the Dice of every held-out case, from the files of `predict_held_out` and the raw labels.

    Raises:
        DatasetError: a case has no label file any more, or one of another grid.
    """
    rows = [(fold, case) for fold, cases in comparison.held_out.items() for case in cases]
    references = label_files(comparison.dataset, [case for _, case in rows])
    files = {
        (candidate, fold): comparison.predictions(candidate, fold)
        for candidate in comparison.candidates
        for fold in comparison.held_out
    }
    cases = [
        _HeldOutCase(case, references[case], tuple(files[candidate, fold][case] for candidate in comparison.candidates))
        for fold, case in rows
    ]
    labels = comparison.plan.label_set
    workers = workers_for([file for case in cases for file in case.predictions])
    dice = map_cases(partial(_dice_of_case, labels=labels), cases, "measure", workers, lambda case: case.name)
    patients = patients_of(comparison.dataset, comparison.folders)
    return DiceTable(
        candidates=tuple(tuple(model.path.name for model in candidate) for candidate in comparison.candidates),
        folds=tuple(fold for fold, _ in rows),
        patients=tuple(patients.get(case, case) for _, case in rows),
        classes=tuple(labels.targets),
        values=np.stack(dice, axis=1),  # (candidates, rows, classes, 2)
    )


def _dice_of_case(case: _HeldOutCase, labels: LabelSet) -> NDArray[np.floating]:
    """Return the Dice `(candidates, classes, 2)` of one case; of regions, which overlap, all components are kept."""
    reference = read_label(case.reference)
    dice = []
    for file in case.predictions:
        prediction = read_label(file)
        check_pair(case.name, reference, prediction)
        plain = prediction.array[0]
        largest = plain if labels.has_regions else keep_largest(plain, [(value,) for value in labels.foreground_values])
        dice.append([list(dice_of_classes(reference.array[0], one, labels).values()) for one in (plain, largest)])
    return np.moveaxis(np.array(dice, float), 1, -1)  # None becomes NaN
