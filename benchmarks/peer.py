"""nnU-Net on a part of a data set: a workplace for its commands, its plans, its 2d network and its prediction."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autosam_net.data.dataset import CaseFiles, DatasetSpec, find_dataset
from autosam_net.parallel import available_cores
from autosam_net.paths import find_folders


def write_part(whole: DatasetSpec, cases: Sequence[CaseFiles], root: Path) -> DatasetSpec:
    """Return a data set of some cases of another, as links in `raw/` below `root`."""
    folders = find_folders(root)
    folder = folders.raw / whole.name
    for case in cases:
        assert case.label is not None, f"{case.name} has a label map"
        for file, place in [*((image, "imagesTr") for image in case.images), (case.label, "labelsTr")]:
            (folder / place).mkdir(parents=True, exist_ok=True)
            (folder / place / file.name).symlink_to(file.resolve())
    content = json.loads((whole.folder / "dataset.json").read_text(encoding="utf-8"))
    content.pop("dataset", None)  # a list of files, which are not those of the part
    content["numTraining"] = len(cases)
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return find_dataset(whole.name, folders)


def run_command(name: str, *arguments: str) -> str:
    """Run a console script of the environment's, as long as it takes; return what it prints.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
    """
    command = [str(Path(sys.executable).parent / name), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with code {done.returncode}:\n{done.stdout[-2000:]}")
    return done.stdout


@dataclass(frozen=True)
class Peer:
    """nnU-Net's folders for one data set.

    Attributes:
        part: the raw data set, which both sides read.
        folder: of what nnU-Net writes.
    """

    part: DatasetSpec
    folder: Path

    def enter(self) -> None:
        """Name the folders in the environment, where nnU-Net looks when it is imported or started, and its processes.

        It takes as many as there are cores, to draw batches too.
        """
        for name, place in {
            "raw": self.part.folder.parent,
            "preprocessed": self.folder,
            "results": self.results,
        }.items():
            place.mkdir(parents=True, exist_ok=True)
            os.environ[f"nnUNet_{name}"] = str(place)
        os.environ["nnUNet_n_proc_DA"] = str(available_cores())  # noqa: SIM112  (its name)

    @property
    def results(self) -> Path:
        """Return the folder of its models."""
        return self.folder / "results"

    def plan_and_preprocess(self) -> None:
        """Measure, plan and preprocess from the beginning, 2d configuration only."""
        cores = str(available_cores())
        run_command(
            *("nnUNetv2_plan_and_preprocess", "-d", self._number, "-c", "2d", "--clean", "-npfp", cores, "-np", cores)
        )

    def preprocess(self) -> None:
        """Preprocess anew by the plan that there is, 2d configuration only."""
        run_command("nnUNetv2_preprocess", "-d", self._number, "-c", "2d", "-np", str(available_cores()))

    @property
    def _number(self) -> str:
        return str(int(self.part.name[7:10]))

    def trainer(self) -> Any:
        """Return nnU-Net's 2d trainer on the CPU, on all cases of the part."""
        import torch
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

        plans = {**self._plans(), "continue_training": False}
        return nnUNetTrainer(plans, "2d", "all", self._content(), torch.device("cpu"))  # type: ignore[arg-type]

    def predictor(self, network: Any, mirrored: bool = True) -> Any:
        """Return what predicts by a network, averaged over mirrored images as is nnU-Net's habit, or without that."""
        import torch
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        manager = PlansManager(self._plans())
        predictor = nnUNetPredictor(
            use_mirroring=mirrored, device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False
        )
        configuration, weights = manager.get_configuration("2d"), [network.state_dict()]
        predictor.manual_initialization(
            network, manager, configuration, weights, self._content(), "nnUNetTrainer", (0, 1)
        )
        return predictor

    def _plans(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self._preprocessed / "nnUNetPlans.json").read_text(encoding="utf-8"))
        return content

    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self._preprocessed / "dataset.json").read_text(encoding="utf-8"))
        return content

    @property
    def _preprocessed(self) -> Path:
        return self.folder / self.part.name

    def untrained_network(self) -> Any:
        """Return the planned 2d network as it is before training."""
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        manager = PlansManager(self._plans())
        outputs = manager.get_label_manager(self._content()).num_segmentation_heads
        configuration, channels = manager.get_configuration("2d"), len(self.part.channel_names)
        return nnUNetTrainer.build_network_architecture(manager, configuration, channels, outputs, False)


def predict_files(predictor: Any, cases: Sequence[CaseFiles], folder: Path) -> list[Path]:
    """Return the label maps that nnU-Net predicts and writes, one a case, from its files to the file on their grid."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = [folder / case.name for case in cases]
    images = [[str(file) for file in case.images] for case in cases]
    predictor.predict_from_files_sequential(images, [str(target) for target in targets])
    ending = predictor.dataset_json["file_ending"]
    return [target.with_name(target.name + ending) for target in targets]
