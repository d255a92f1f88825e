"""A trained model by the number of its data set, from its folder, or from the zip that it was handed on in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from autosam_net.device import choose_device
from autosam_net.errors import ModelError, UsageError
from autosam_net.inference.choose import load_chosen_models, load_model_folders, models_of
from autosam_net.inference.model import Model
from autosam_net.inference.package import load_model_zip
from autosam_net.paths import Folders, find_folders
from autosam_net.training.run import ModelFolder


def load_model(
    source: int | str | Path,
    configurations: Sequence[str] | None = None,
    folds: Sequence[str] | None = None,
    device: str = "auto",
    folders: Folders | None = None,
    weights: Path | str | None = None,
) -> Model:
    """Return a trained model, ready to predict.

    Args:
        source: number or name of a data set; or the path of a zip of `autosam_export_model`, or of a model's folder
            such as `results/Dataset027_ACDC/cnn`. Text with a slash, or that ends with .zip, is a path.
        configurations: of a data set, names of its models (`cnn`, `vit_labelled1_seed0`); several are averaged. If
            None, what `autosam_find_best_configuration` chose, with its folds and post-processing; else the only one.
        folds: of those trained; all if None.
        device: "auto" (a GPU where there is one), "cpu", "cuda" ...
        folders: where a data set's models lie; if None, as the environment says.
        weights: with a zip, the encoder's weights, where they are not the published ones.

    Raises:
        ModelError: no model, or more than one, fits, or models changed since the best were chosen.
        UsageError: a fold is not trained, the device cannot be used, or arguments contradict each other.
        WeightsError: the encoder's weights are missing or damaged.
    """
    device = choose_device(device)
    if (path := _path_of(source)) is None:
        if weights is not None:
            raise UsageError(f"weights {weights}: goes with a zip; else plan.json names the weights.")
        models = models_of(str(source), folders or find_folders())
        return load_chosen_models(models, configurations, folds, device, models[0].path.parent.name)
    if configurations is not None:
        raise UsageError(f"{path}: names the model already. Leave the configurations out.")
    return load_model_file(path, folds, device, None if weights is None else Path(weights))


def load_model_file(path: Path, folds: Sequence[str] | None, device: str, weights: Path | None = None) -> Model:
    """Return the model in a zip, or in a folder of trained folds.

    Args:
        weights: with a zip, the encoder's weights, where they are not the published ones.

    Raises:
        ModelError: there is no model.
        UsageError: weights are named that plan.json names already, or a fold is not trained.
    """
    if path.is_file():
        return load_model_zip(path, folds, device, weights)
    if weights is not None:
        raise UsageError(f"--weights {weights}: goes with a zip; {path / 'plan.json'} names the weights.")
    model = ModelFolder(path)
    if not model.trained_folds():
        raise ModelError(f"{path}: no trained folds here. Give a zip, or a folder like results/Dataset027_ACDC/cnn.")
    return load_model_folders([model], folds, device)


def _path_of(source: int | str | Path) -> Path | None:
    if isinstance(source, Path):
        return source
    text = str(source)
    separators = [os.sep] if os.altsep is None else [os.sep, os.altsep]
    return Path(text) if text.endswith(".zip") or any(mark in text for mark in separators) else None
