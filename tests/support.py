"""Helpers of many tests: the real data, files and folders, a small random encoder, and a plan for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor, nn

from autosam_net.data.configuration import Configuration
from autosam_net.data.dataset import DatasetSpec
from autosam_net.data.encoding import Encoding, RgbSource
from autosam_net.data.fingerprint import Fingerprint
from autosam_net.data.plan import PLAN_VERSION, Normalization, Plan, Preprocessing
from autosam_net.data.prompts import PromptOptions
from autosam_net.data.splits import group_cases, make_splits
from autosam_net.encoders.catalog import ENCODERS
from autosam_net.jsonio import sealed, write_json
from autosam_net.paths import Folders, find_folders
from autosam_net.training.cases import training_split
from autosam_net.training.run import ModelFolder, TrainingOptions

TINY = "tiny_for_tests"
VITS = {"vit_b": (2, 32), "medsam": (2, 32), "vit_l": (3, 48), "vit_h": (5, 64)}  # depth and width; really 12 to 32


def real_data(*parts: str) -> Path:
    """Return a folder of the real test data, or skip the test."""
    root = Path(os.environ.get("AUTOSAM_TEST_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
    folder = root.joinpath(*parts)
    if not folder.is_dir():
        pytest.skip(f"real data not found: {folder} (set AUTOSAM_TEST_DATA)")
    return folder.resolve()


def write_nifti(
    path: Path,
    array: NDArray[Any],
    spacing: tuple[float, ...] = (5.0, 1.0, 1.0),
    origin: tuple[float, ...] = (0.0, 0.0, 0.0),
) -> None:
    """Write an array `(Z, Y, X)` with its spacing in the same order."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    image.SetOrigin(origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def snapshot(folder: Path) -> dict[str, tuple[int, bytes] | None]:
    """Return everything below a folder: time and content of each file, None for a folder."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def only_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line on stderr, progress bars left out."""
    lines = [line for line in capsys.readouterr().err.splitlines() if "case/s" not in line and line]
    assert len(lines) == 1, lines
    return lines[0]


class TinyNetwork(nn.Module):
    """Two convolutions from (B, 3, S, S) to (B, 32, S / 4, S / 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 4, stride=4)
        self.second = nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(images)))


def build_tiny(input_size: int, weights: Mapping[str, Tensor]) -> nn.Module:
    network = TinyNetwork()
    network.load_state_dict(dict(weights))
    return network


@dataclass(frozen=True)
class Prepared:
    """A data set that is ready to be trained on."""

    dataset: DatasetSpec
    plan: Plan
    folders: Folders
    root: Path


def copied(place: Prepared, root: Path) -> Prepared:
    """Return a copy of a raw and preprocessed data set below `root`, without its embeddings."""
    for name in ("raw", "preprocessed"):
        shutil.copytree(place.root / name, root / name, ignore=shutil.ignore_patterns("embeddings"))
    folders = find_folders(root)
    return Prepared(replace(place.dataset, folder=folders.raw / place.dataset.name), place.plan, folders, root)


def tiny_plan(dataset: DatasetSpec, weights: Path) -> Plan:
    """Return a plan for the phantom and the tiny encoder: 64 px inputs that need tiling of 96 px slices."""
    recipe = {
        "batch_size": 4,
        "epochs": 2,
        "maximum_epochs": 2,
        "iterations": 5,
        "learning_rate": 1e-2,
        "weight_decay": 1e-2,
    }
    rgb = (RgbSource(0), RgbSource(0), RgbSource(0))
    return Plan(
        version=PLAN_VERSION,
        dataset=dataset.name,
        channel_names=dataset.channel_names,
        labels=dataset.labels.values,
        regions_class_order=dataset.labels.regions_class_order,
        file_ending=dataset.file_ending,
        preprocessing=Preprocessing(0, 2.0, (Normalization("percentile", 0.5, 99.5),)),
        encoding=Encoding(
            TINY, str(weights), 64, 0.25, rgb, maximum_views=2, slice_budget=1000, rotation=180.0, pixels=True
        ),
        configurations={
            "linear": Configuration(head="linear", settings={}, **recipe),
            "cnn": Configuration(head="cnn", settings={}, **recipe, crop=0.5),
        },
        keep_largest=(),
        folds=5,
        group_pattern=dataset.group_pattern,
        reasons={},
        estimates={},
    )


def build_patches(input_size: int, weights: Mapping[str, Tensor]) -> nn.Module:
    network = nn.Conv2d(3, 256, 4, stride=4)
    network.load_state_dict(dict(weights))
    return network


def with_small_sam(place: Prepared, root: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """Return a copy planned for an encoder with a whole checkpoint of SAM's, random, until the end of the test.

    Its configurations: `prompted`, trained for two batches, and `linear`.
    """
    (root / "raw").symlink_to(place.root / "raw")
    ignored = shutil.ignore_patterns("embeddings")
    shutil.copytree(place.root / "preprocessed", root / "preprocessed", ignore=ignored)
    torch.manual_seed(5)
    parts = {
        "image_encoder": nn.Conv2d(3, 256, 4, stride=4),
        "prompt_encoder": PromptEncoder(256, (16, 16), (64, 64), 16),
        "mask_decoder": MaskDecoder(transformer_dim=256, transformer=TwoWayTransformer(2, 256, 8, 2048)),
    }
    state = {f"{part}.{key}": value for part, module in parts.items() for key, value in module.state_dict().items()}
    torch.save(state, root / "sam.pth")
    entry = replace(ENCODERS.get("lite_medsam"), name="small_sam", build=build_patches, input_size=64, multiple=4)
    monkeypatch.setitem(ENCODERS._entries, "small_sam", entry)
    encoding = replace(place.plan.encoding, encoder="small_sam", weights=str(root / "sam.pth"))
    linear = replace(place.plan.configuration("linear"), epochs=1, maximum_epochs=1, iterations=2)
    prompted = replace(linear, head="prompted", learning_rate=1e-4, prompts=PromptOptions("box"))
    plan = replace(place.plan, encoding=encoding, configurations={"linear": linear, "prompted": prompted})
    write_json(root / "preprocessed" / plan.dataset / "plan.json", plan)
    return Prepared(place.dataset, plan, find_folders(root), root)


def with_unet(plan: Plan) -> Plan:
    """Return the plan with a small U-Net beside the heads."""
    unet = replace(plan.configuration("linear"), head="unet", settings={"width": 4.0}, encoder="image")
    return replace(plan, configurations={**plan.configurations, "unet": unet})


class Recorder:
    """Takes the place of `train_and_validate`: notes what was asked for and writes what a training leaves.

    Attributes:
        runs: configuration and options of each.
        stop_at: how many are done when Ctrl-C comes.
    """

    def __init__(self, facts: Mapping[str, Any], dice: Callable[[str, TrainingOptions], float]) -> None:
        """Record nothing yet.

        Args:
            facts: that run.json tells, beside options and cases.
            dice: of a run.
        """
        self.facts, self.dice = facts, dice
        self.runs: list[tuple[str, TrainingOptions]] = []
        self.stop_at: int | None = None

    def __call__(
        self,
        dataset: DatasetSpec,
        plan: Plan,
        configuration: str,
        fold: str,
        options: TrainingOptions,
        folders: Folders,
    ) -> tuple[Path, None]:
        if len(self.runs) == self.stop_at:
            raise KeyboardInterrupt
        assert options.resume and not options.overwrite
        self.runs.append((configuration, options))
        model = ModelFolder(folders.results / dataset.name / options.run_name(configuration))
        folder, split = model.fold(fold), training_split(dataset, fold, options, folders)
        write_json(model.plan_file, plan.for_configuration(configuration, options.tuning))
        cases = {"trained_on": split.train, "held_out": split.val}
        write_json(folder / "run.json", {**self.facts, "options": options, **cases})
        dice = self.dice(configuration, options)
        means = {"foreground_mean": {"Dice": dice, "HD95": 5.0}, "mean": {"1": {"Dice": dice}}}
        write_json(folder / "validation" / "summary.json", {**means, "label_names": {"1": "RV"}})
        return folder, None


def write_records(dataset: DatasetSpec, plan: Plan, folders: Folders) -> None:
    """Write the files that planning leaves beside the preprocessed cases."""
    from autosam_net.data.dataset import training_cases

    folder = folders.preprocessed / dataset.name
    groups = group_cases([case.name for case in training_cases(dataset)], dataset.group_pattern)
    fingerprint = Fingerprint(dataset.name, (), ("other",), groups, ((0.0, 1.0),), {})
    write_json(folder / "plan.json", plan)
    write_json(folder / "splits_final.json", make_splits(groups))
    write_json(folder / "dataset_fingerprint.json", sealed(fingerprint))
