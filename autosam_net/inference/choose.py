"""Which trained models and folds predict together, and whether they can; loads them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autosam_net.data.dataset import dataset_folder_name
from autosam_net.data.plan import Plan
from autosam_net.embedding.source import EncoderSource
from autosam_net.errors import ModelError, UsageError, WeightsError
from autosam_net.evaluation.expected_dice import read_expected_dice
from autosam_net.files import sha256_of_files
from autosam_net.inference.best import BEST_FILE, Best, read_best
from autosam_net.inference.model import Model
from autosam_net.inference.trained_head import load_head
from autosam_net.paths import Folders
from autosam_net.registry import suggest
from autosam_net.training.check_plan import load_checked_plan
from autosam_net.training.run import ModelFolder, fit_together, list_models

log = logging.getLogger(__name__)


def load_chosen_models(
    models: Sequence[ModelFolder], names: Sequence[str] | None, folds: Sequence[str] | None, device: str, where: str
) -> Model:
    """Return the model of those called `names` among a data set's; if None, of the best, or else of the only one.

    Raises:
        ModelError: as `select_models` and `load_model_folders` do.
    """
    selection = select_models(models, names, folds, where)
    model = load_model_folders(selection.models, selection.folds, device)
    if (best := selection.best) is None:
        return model
    log.info("%s: %s", BEST_FILE, best.description)
    return replace(model, largest_only=model.plan.largest_only(best.choice.keep_largest))


@dataclass(frozen=True)
class Selection:
    """Models and folds (all trained ones if None) that predict together; `best`, where its choice decided that."""

    models: list[ModelFolder]
    folds: Sequence[str] | None
    best: Best | None = None


def select_models(
    models: Sequence[ModelFolder], names: Sequence[str] | None, folds: Sequence[str] | None, where: str
) -> Selection:
    """Return those called `names` among a data set's models; if None, the best ones, or else the only one.

    Raises:
        ModelError: as `choose_models` and `read_best` do.
    """
    best = read_best(models[0].path.parent) if models and names is None else None
    if best is None:
        return Selection(choose_models(models, names, where), folds)
    return Selection(choose_models(models, best.choice.configurations, where), folds or best.folds, best)


def models_of(dataset: int | str, folders: Folders) -> list[ModelFolder]:
    """Return the models of a data set with at least one finished fold.

    Raises:
        DatasetError: there is no folder of such a data set.
        ModelError: there is one, without a finished fold.
    """
    cure = "Run autosam_train first, or point --root or autosam_results to the folder that holds the models."
    name = dataset_folder_name(dataset, folders.results, cure)
    models = [model for model in list_models(folders) if model.path.parent.name == name]
    if not models:
        raise ModelError(f"{folders.results / name}: no fold has been trained to its end. {cure}")
    return models


def choose_models(models: Sequence[ModelFolder], names: Sequence[str] | None, where: str) -> list[ModelFolder]:
    """Return the models called `names`, or the only one.

    Raises:
        ModelError: there is none, or no names are given and there are several.
    """
    if not models:
        raise ModelError(f"{where}: no trained model. Run autosam_train first.")
    by_name = {model.path.name: model for model in models}
    if names is None:
        if len(models) > 1:
            listed = ", ".join(model.name for model in models)
            raise ModelError(
                f"{where}: several models are trained: {listed}. Choose with -d and -c, or with -m FOLDER."
            )
        return list(models)
    for name in names:
        if name not in by_name:
            raise ModelError(f"{where}: no trained model {name!r}; {suggest(name, by_name)}")
    return [by_name[name] for name in names]


def load_model_folders(models: Sequence[ModelFolder], folds: Sequence[str] | None, device: str) -> Model:
    """Return one model of all folds of the given model folders.

    Raises:
        ModelError: they do not share preprocessing, encoder, labels and keep_largest, or a file is damaged.
        UsageError: a fold is not trained.
        WeightsError: the encoder's weights are missing or damaged.
    """
    plans = [load_checked_plan(model.plan_file) for model in models]
    _refuse_misfits(models, plans)
    check_components(models, plans)
    source = EncoderSource(plans[0].encoding, device)
    files = [file for model in models for file in _fold_files(model, folds)]
    heads = tuple(load_head(file, plans[0], source) for file in files)
    log.info("%d %s of %s", len(heads), "head" if len(heads) == 1 else "heads", ", ".join(m.name for m in models))
    if plans[0].encoding.tuned and len(heads) > 1:
        own = "an encoder" if plans[0].encoding.tuned_from is None else "the encoder's upper part"
        log.info("each has tuned %s of its own: %d encoder passes where a frozen one takes one", own, len(heads))
    learnt = {model.path: read_expected_dice(model.path) for model in models}
    expected = tuple(learnt[file.parent.parent] for file in files)
    origins = {f"{file.parent.parent.name} {file.parent.name}": sha256_of_files([file]) for file in files}
    return Model(plans[0], heads, source, plans[0].encoding.poses, plans[0].largest_only(), expected, origins)


def _refuse_misfits(models: Sequence[ModelFolder], plans: Sequence[Plan]) -> None:
    """Refuse models that cannot predict together, and those whose encoder has no weights on this machine."""
    for model, plan in zip(models, plans, strict=True):
        if plan.encoding.encoder != plans[0].encoding.encoder:
            raise ModelError(
                f"{model.name} works on the encoder {plan.encoding.encoder}, {models[0].name} on "
                f"{plans[0].encoding.encoder}; an ensemble has one encoder. Predict with each alone."
            )
        if plan.encoding.tuned != plans[0].encoding.tuned:
            raise ModelError(
                f"only one of {model.name} and {models[0].name} has tuned the encoder; predict with each alone."
            )
        if (plan.prompts is None) != (plans[0].prompts is None):
            raise ModelError(f"only one of {model.name} and {models[0].name} needs prompts; predict with each alone.")
        if not fit_together(plan, plans[0]):
            raise ModelError(
                f"{model.name} and {models[0].name} were trained by different plans; predict with each alone."
            )
        weights = plan.encoding.weights_file
        if weights is not None and not weights.is_file():
            raise WeightsError(
                f"{model.plan_file}: encoding: weights: {weights} does not exist here. Put the weights of "
                f"{plan.encoding.encoder} that the model was trained with there, or correct the path in this plan.json."
            )


def check_components(models: Sequence[ModelFolder], plans: Sequence[Plan]) -> None:
    """Refuse models whose plans keep the largest component of different classes.

    Raises:
        ModelError: two of them do.
    """
    for model, plan in zip(models, plans, strict=True):
        if plan.largest_only() != plans[0].largest_only():
            raise ModelError(
                f"{model.name} keeps the largest component of {', '.join(plan.keep_largest) or 'no class'}, "
                f"{models[0].name} of {', '.join(plans[0].keep_largest) or 'no class'}. Write the same keep_largest in "
                "their plan.json."
            )


def choose_folds(model: ModelFolder, folds: Sequence[str] | None) -> list[str]:
    """Return `folds`, or all trained folds if None.

    Raises:
        UsageError: one is not trained.
    """
    trained = model.trained_folds()
    for fold in folds or ():
        if fold not in trained:
            raise UsageError(f"{model.name}: fold {fold} is not trained; trained folds: {', '.join(trained)}")
    return list(folds or trained)


def _fold_files(model: ModelFolder, folds: Sequence[str] | None) -> list[Path]:
    return [model.fold(fold) / "model.safetensors" for fold in choose_folds(model, folds)]
