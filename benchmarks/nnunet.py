"""nnU-Net's 2d configuration on the same raw data: preprocessing, and prediction by an untrained network."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from autosam_net.data.dataset import DatasetSpec, find_dataset, training_cases
from autosam_net.parallel import available_cores
from autosam_net.paths import Folders
from autosam_net.preprocessing.preprocess import preprocess_dataset
from benchmarks.measuring import Row, Setting, timed
from benchmarks.prediction import untrained_model


def measure(setting: Setting) -> list[Row]:
    """Return the time of preprocessing and predicting a case, ours and theirs, on all cores."""
    part = _part_of(setting)
    folders = Folders(part.folder.parent, setting.scratch / "preprocessed", setting.scratch / "results")
    environment = {"raw": folders.raw, "preprocessed": setting.scratch / "theirs", "results": folders.results}
    for name, folder in environment.items():  # read when nnunetv2 is imported
        folder.mkdir(exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(folder)
    count, cores = len(training_cases(part)), available_cores()
    theirs = _preprocess_theirs(part, cores)
    ours = timed(lambda: preprocess_dataset(part, setting.plan, folders, cores))
    rows = [
        Row("preprocess, nnunetv2 2d", "case", theirs / count),
        Row("preprocess, ours", "case", ours / count, theirs / ours, "times as fast as nnunetv2", ">= 2"),
    ]
    return [*rows, *_prediction(setting, part)]


def _part_of(setting: Setting) -> DatasetSpec:
    """Return a data set of the first cases, as links in the scratch folder."""
    whole = setting.dataset
    folder = setting.scratch / "raw" / whole.name
    chosen = training_cases(whole)[: setting.cases]
    for case in chosen:
        assert case.label is not None, f"{case.name} has a label map"
        for file, place in [*((image, "imagesTr") for image in case.images), (case.label, "labelsTr")]:
            (folder / place).mkdir(parents=True, exist_ok=True)
            (folder / place / file.name).symlink_to(file.resolve())
    content = json.loads((whole.folder / "dataset.json").read_text(encoding="utf-8"))
    content["numTraining"] = len(chosen)
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return find_dataset(whole.name, Folders(folder.parent, folder, folder))


def _preprocess_theirs(part: DatasetSpec, cores: int) -> float:
    """Plan (not timed) and preprocess; return the seconds of the latter."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess

    number = int(part.name[7:10])
    extract_fingerprints([number], num_processes=cores, check_dataset_integrity=False)
    plan_experiments([number])
    return timed(lambda: preprocess([number], configurations=["2d"], num_processes=[cores], verbose=False))


def _prediction(setting: Setting, part: DatasetSpec) -> list[Row]:
    case = training_cases(part)[0]
    model, predictor = untrained_model(setting, ("cnn",), 1), _predictor(part, setting.scratch / "theirs" / part.name)
    target = setting.scratch / "theirs" / case.name

    def theirs() -> None:
        from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

        image, properties = SimpleITKIO().read_images([str(file) for file in case.images])
        predictor.predict_single_npy_array(image, properties, None, str(target), False)

    def ours() -> None:
        shutil.rmtree(setting.scratch / "predicted", ignore_errors=True)
        model.predict_folder(list(case.images), setting.scratch / "predicted")

    ours()  # loads the encoder
    before, after = timed(theirs), timed(ours)
    return [
        Row("predict, nnunetv2 2d with mirroring, untrained", "case", before),
        Row("predict, 1 fold of cnn", "case", after, before / after, "times as fast as nnunetv2"),
    ]


def _predictor(part: DatasetSpec, folder: Path) -> Any:
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    content = json.loads((part.folder / "dataset.json").read_text(encoding="utf-8"))
    manager = PlansManager(str(folder / "nnUNetPlans.json"))
    configuration = manager.get_configuration("2d")
    network = nnUNetTrainer.build_network_architecture(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        len(part.channel_names),
        manager.get_label_manager(content).num_segmentation_heads,
        enable_deep_supervision=False,
    )
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
    weights = [network.state_dict()]
    predictor.manual_initialization(network, manager, configuration, weights, content, "nnUNetTrainer", (0, 1))
    return predictor
