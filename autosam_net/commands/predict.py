"""`autosam_predict -i in -o out`: the best ensemble, or all trained folds of the models named, in one encoder pass."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from autosam_net.commands.cli import add_device, device_of, folders_of, new_parser, run
from autosam_net.errors import ModelError, UsageError

if TYPE_CHECKING:
    from autosam_net.inference.model import Model
    from autosam_net.training.run import ModelFolder


def main(argv: list[str] | None = None) -> int:
    """Run the command; see `autosam_predict --help`."""
    parser = new_parser("Predict images with the ensemble of all trained folds; label maps lie on the raw grid.")
    parser.add_argument(
        "-i", "--input", type=Path, nargs="+", required=True, help="folder of images or DICOM series, or one of them"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the label maps")
    parser.add_argument("-d", "--dataset", help="number or name; needed only where several have models")
    parser.add_argument(
        "-c",
        "--configuration",
        nargs="+",
        help="one or several trained models, e.g. vit cnn (default: what autosam_find_best_configuration chose)",
    )
    parser.add_argument("-m", "--model", type=Path, help="a model's folder, instead of -d and -c")
    parser.add_argument("-f", "--folds", nargs="+", help="folds to use (default: all that are trained)")
    parser.add_argument("--save_probabilities", action="store_true", help="also CASE_probabilities.npy, float16")
    parser.add_argument("--save_dicom_seg", action="store_true", help="also CASE.dcm, a DICOM-SEG on the case's series")
    parser.add_argument("--continue_prediction", action="store_true", help="skip cases that are predicted already")
    parser.add_argument("--disable_tta", action="store_true", help="no mirroring, even where the plan has it")
    parser.add_argument("--disable_postprocessing", action="store_true", help="keep all components of every class")
    add_device(parser)
    return run(_predict, parser, argv)


def _predict(arguments: argparse.Namespace) -> None:
    if arguments.output.is_file():
        raise UsageError(f"-o {arguments.output}: is a file. Give the folder that the label maps shall lie in.")
    model = _model(arguments)
    if arguments.disable_tta:
        model = model.without_flips()
    if arguments.disable_postprocessing:
        model = model.without_postprocessing()
    written = model.predict_folder(
        arguments.input,
        arguments.output,
        arguments.save_probabilities,
        arguments.continue_prediction,
        arguments.save_dicom_seg,
    )
    print(f"{len(written)} label maps in {arguments.output}")


def _model(arguments: argparse.Namespace) -> Model:
    from autosam_net.inference.model import load_chosen_models, load_model_folders, models_of
    from autosam_net.training.run import list_models

    if arguments.model is not None:
        return load_model_folders([_model_folder(arguments)], arguments.folds, device_of(arguments))
    folders = folders_of(arguments)
    models = list(list_models(folders)) if arguments.dataset is None else models_of(arguments.dataset, folders)
    if len({model.path.parent for model in models}) > 1:
        listed = ", ".join(model.name for model in models)
        raise ModelError(
            f"{folders.results}: several models are trained: {listed}. Choose with -d and -c, or -m FOLDER."
        )
    return load_chosen_models(
        models, arguments.configuration, arguments.folds, device_of(arguments), str(folders.results)
    )


def _model_folder(arguments: argparse.Namespace) -> ModelFolder:
    from autosam_net.training.run import ModelFolder

    if arguments.dataset is not None or arguments.configuration is not None:
        raise UsageError(f"-m {arguments.model}: names the model already. Leave -d and -c out.")
    model = ModelFolder(arguments.model)
    if not model.trained_folds():
        raise ModelError(f"{arguments.model}: no trained folds here. Give a folder like results/Dataset027_ACDC/cnn.")
    return model
