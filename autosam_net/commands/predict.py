"""`autosam_predict -i in -o out`: the best ensemble, or all trained folds of the models named, in one encoder pass."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autosam_net.commands.cli import (
    add_device,
    add_parts,
    add_resources,
    device_of,
    folders_of,
    load_libraries,
    new_parser,
    part_of,
    run,
)
from autosam_net.errors import ModelError, UsageError
from autosam_net.jsonio import sealed, write_json

if TYPE_CHECKING:
    from autosam_net.inference.model import Model


def main(argv: list[str] | None = None) -> int:
    """Run the command; see `autosam_predict --help`."""
    parser = new_parser("Predict images with the ensemble of all trained folds; label maps lie on the raw grid.")
    what = "folder of images or DICOM series, or one or several of them"
    parser.add_argument("-i", "--input", type=Path, nargs="+", metavar="PATH", required=True, help=what)
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", required=True, help="folder for the label maps")
    parser.add_argument("-d", "--dataset", metavar="ID", help="number or name; needed only where several have models")
    parser.add_argument(
        "-c",
        "--configurations",
        nargs="+",
        metavar="NAME",
        help="one or several trained models, e.g. vit cnn (default: what autosam_find_best_configuration chose)",
    )
    parser.add_argument(
        "-m", "--model", type=Path, metavar="PATH", help="a model's folder or zip, instead of -d and -c"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="with a zip: the encoder's weights, if not the published ones"
    )
    what = "prompts.json, for a model that needs prompts (docs/guides/prompts.md)"
    parser.add_argument("--prompts", type=Path, metavar="FILE", help=what)
    parser.add_argument(
        "--zero-shot", action="store_true", help="with -d and --prompts: SAM as it is, instead of a trained model"
    )
    parser.add_argument("-f", "--folds", nargs="+", metavar="K", help="folds to use (default: all that are trained)")
    parser.add_argument("--save_probabilities", action="store_true", help="also CASE_probabilities.npy, float16")
    parser.add_argument(
        "--save_uncertainty", action="store_true", help="also images of entropy, and of the heads' disagreement"
    )
    parser.add_argument("--save_dicom_seg", action="store_true", help="also CASE.dcm, a DICOM-SEG on the case's series")
    parser.add_argument("--continue_prediction", action="store_true", help="skip cases that are predicted already")
    parser.add_argument(
        "--disable_tta", action="store_true", help="no test-time augmentation, even where the plan has it"
    )
    parser.add_argument("--disable_postprocessing", action="store_true", help="keep all components of every class")
    add_device(parser)
    add_parts(parser)
    add_resources(parser, workers=None)
    return run(_predict, parser, argv)


def _predict(arguments: argparse.Namespace) -> None:
    if arguments.output.is_file():
        raise UsageError(f"-o {arguments.output}: is a file. Give the folder that the label maps shall lie in.")
    load_libraries()
    model = _model(arguments)
    if arguments.disable_tta:
        model = model.without_augmentation()
    if arguments.disable_postprocessing:
        model = model.without_postprocessing()
    begin = time.monotonic()
    written = model.predict_folder(
        arguments.input,
        arguments.output,
        save_probabilities=arguments.save_probabilities,
        skip_existing=arguments.continue_prediction,
        save_uncertainty=arguments.save_uncertainty,
        save_dicom_seg=arguments.save_dicom_seg,
        part=part_of(arguments),
        prompts=arguments.prompts,
    )
    record = _record(model, time.monotonic() - begin, arguments.prompts)
    write_json(arguments.output / "run.json", sealed(record))
    print(f"{len(written)} label maps in {arguments.output}")
    print(_said_of_quality(arguments.output))


def _record(model: Model, seconds: float, prompts: Path | None) -> dict[str, Any]:
    """Return what run.json says of a prediction: heads, settings, times, machine and versions."""
    from autosam_net.encoders.weights import weights_sha256
    from autosam_net.files import sha256_of_files
    from autosam_net.training.manifest import run_facts

    encoding = model.plan.encoding
    return {
        "heads": model.origins,
        "encoder": encoding.encoder,
        "encoder_sha256": weights_sha256(encoding.encoder, encoding.weights_file),
        "poses": model.poses,
        "largest_only": model.largest_only,
        **({} if prompts is None else {"prompts": str(prompts), "prompts_sha256": sha256_of_files([prompts])}),
        "seconds": {"prediction": round(seconds, 1)},
        **run_facts(model.source.device),
    }


def _said_of_quality(output: Path) -> str:
    """Return in a line which cases cases.csv flags."""
    from autosam_net.evaluation.case_table import CASES_FILE, read_rows
    from autosam_net.evaluation.expected_dice import MINIMUM_PATIENTS

    rows = {case: row for (case, _), row in read_rows(output / CASES_FILE).items()}
    flagged = {case: float(row["expected_mean_Dice"]) for case, row in rows.items() if row.get("flag") == "bad"}
    bad = [f"{case} ({dice:.3f})" for case, dice in flagged.items()]
    if not any(row.get("flag") for row in rows.values()):
        few = f"fewer than {MINIMUM_PATIENTS} patients were held out, or validated by an earlier version"
        return f"no expected Dice: {few} (autosam_calibrate)"
    said = f"{len(bad)} of {len(rows)} cases are flagged as bad in {output / CASES_FILE}"
    if not bad:
        return said
    named = f"{', '.join(bad[:10])}{' ...' * (len(bad) > 10)}"
    return f"{said}, with an expected Dice below what the worst quarter in validation reached: {named}"


def _model(arguments: argparse.Namespace) -> Model:
    from autosam_net.inference.choose import load_chosen_models, models_of
    from autosam_net.inference.load import load_model_file
    from autosam_net.training.run import list_models

    if arguments.zero_shot:
        return _zero_shot(arguments)
    if arguments.model is not None:
        if arguments.dataset is not None or arguments.configurations is not None:
            raise UsageError(f"-m {arguments.model}: names the model already. Leave -d and -c out.")
        return load_model_file(arguments.model, arguments.folds, device_of(arguments), arguments.weights)
    if arguments.weights is not None:
        raise UsageError(f"--weights {arguments.weights}: goes with -m model.zip; else plan.json names the weights.")
    folders = folders_of(arguments)
    models = list(list_models(folders)) if arguments.dataset is None else models_of(arguments.dataset, folders)
    if len({model.path.parent for model in models}) > 1:
        listed = ", ".join(model.name for model in models)
        raise ModelError(
            f"{folders.results}: several models are trained: {listed}. Choose with -d and -c, or -m FOLDER."
        )
    return load_chosen_models(
        models, arguments.configurations, arguments.folds, device_of(arguments), str(folders.results)
    )


def _zero_shot(arguments: argparse.Namespace) -> Model:
    """Return SAM as it is, for the data set's plan; a trained model's settings do not go with it."""
    given = [("-m", arguments.model), ("-c", arguments.configurations), ("-f", arguments.folds)]
    if unfit := [flag for flag, value in given if value is not None]:
        raise UsageError(f"--zero-shot: nothing is trained, so that {', '.join(unfit)} names nothing. Leave it out.")
    if arguments.dataset is None or arguments.prompts is None:
        raise UsageError("--zero-shot: goes with -d, the data set whose plan is followed, and --prompts prompts.json.")
    from autosam_net.data.dataset import find_dataset
    from autosam_net.data.prompts import PromptOptions
    from autosam_net.encoders.catalog import ENCODERS
    from autosam_net.inference.zero_shot import zero_shot_model
    from autosam_net.training.check_plan import load_checked_plan

    folders = folders_of(arguments)
    dataset = find_dataset(arguments.dataset, folders)
    plan = load_checked_plan(folders.preprocessed / dataset.name / "plan.json")
    trained_with = ENCODERS.get(plan.encoding.encoder).prompts
    options = PromptOptions("both" if "point" in trained_with else "box")
    return zero_shot_model(plan, options, device_of(arguments))
