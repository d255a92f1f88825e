"""Models that travel in a zip predict what they predicted at home, and the zip says all that a stranger needs."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autosam_net.data.dataset import training_cases
from autosam_net.errors import ModelError, UsageError, WeightsError
from autosam_net.evaluation import selection
from autosam_net.inference import package
from autosam_net.inference.best import read_best
from autosam_net.inference.find_best import find_best_configuration
from autosam_net.inference.load import load_model
from autosam_net.inference.model_card import write_model_card
from autosam_net.inference.package import export_model, install_model, load_model_zip
from autosam_net.inference.segment import segment
from autosam_net.jsonio import from_json, to_json, write_json
from autosam_net.paths import Folders, find_folders
from autosam_net.training.run import ModelFolder
from tests.support import Prepared

NAME = "Dataset900_Example"
SCAN, SPACING = np.random.default_rng(0).random((2, 70, 60)), (5.0, 2.0, 2.0)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Folders:
    return find_folders(tmp_path / "elsewhere")


def names_in(zip_file: Path) -> list[str]:
    with zipfile.ZipFile(zip_file) as archive:
        return archive.namelist()


def test_a_zip_holds_what_a_stranger_needs_and_no_more(
    prepared: Prepared, changeable: Folders, tmp_path: Path, tiny_weights: Path
) -> None:
    write_model_card(ModelFolder(changeable.results / NAME / "cnn"), prepared.dataset, changeable)
    manifest = export_model(900, tmp_path / "m.zip", ["cnn"], ["1"], folders=changeable)
    inside = ["LICENSES.md", "MODEL_CARD.md", "dataset.json", "fold_1/model.safetensors", "plan.json"]
    assert names_in(tmp_path / "m.zip") == [*(f"{NAME}/cnn/{name}" for name in inside), "manifest.json"]
    assert (manifest.encoder.name, manifest.encoder.file, manifest.encoder.origin) == (
        prepared.plan.encoding.encoder,
        "tiny.pth",
        None,
    )
    with zipfile.ZipFile(tmp_path / "m.zip") as archive:
        text = b"".join(archive.read(name) for name in archive.namelist() if not name.endswith(".safetensors")).decode()
    cases = [case.name for case in training_cases(prepared.dataset)]
    assert not [name for name in (str(tiny_weights), str(changeable.results), *cases) if name in text]
    assert '"channel_names"' in text and "Apache License" in text and "## The model\n\nNot stated" in text


def test_equal_models_make_equal_bytes_also_after_a_journey(
    trained: Folders, elsewhere: Folders, tmp_path: Path, tiny_weights: Path
) -> None:
    first, second, third = (tmp_path / name for name in ("first.zip", "second.zip", "third.zip"))
    export_model(900, first, ["cnn", "linear"], licence="CC-BY-4.0", folders=trained)
    export_model(900, second, ["linear", "cnn"], licence="CC-BY-4.0", folders=trained)
    install_model(first, tiny_weights, elsewhere)
    export_model(900, third, ["cnn", "linear"], folders=elsewhere)
    assert first.read_bytes() == second.read_bytes() == third.read_bytes()


def test_from_zip_and_installed_it_predicts_as_at_home(
    trained: Folders, elsewhere: Folders, tmp_path: Path, tiny_weights: Path
) -> None:
    export_model(900, tmp_path / "m.zip", ["cnn", "linear"], folders=trained)
    at_home = load_model(900, ["cnn", "linear"], folders=trained)
    from_zip = load_model_zip(tmp_path / "m.zip", weights=tiny_weights)
    models = install_model(tmp_path / "m.zip", tiny_weights, elsewhere)
    assert [model.path.name for model in models] == ["cnn", "linear"]
    installed = load_model(900, ["cnn", "linear"], folders=elsewhere)
    assert len(from_zip.heads) == len(installed.heads) == 4
    expected = segment(SCAN, at_home, SPACING).labels
    for model in (from_zip, installed):
        np.testing.assert_array_equal(segment(SCAN, model, SPACING).labels, expected)
    assert len(load_model_zip(tmp_path / "m.zip", ["1"], weights=tiny_weights).heads) == 2


def test_the_best_choice_travels_along(
    prepared: Prepared,
    changeable: Folders,
    elsewhere: Folders,
    tmp_path: Path,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(selection, "PAIR_MARGIN", -2.0)
    monkeypatch.setattr(selection, "COMPONENT_MARGIN", -2.0)
    best = find_best_configuration(prepared.dataset, folders=changeable)
    with pytest.raises(UsageError, match=r"-f: best.json chose folds 0, 1. Choose others with -c"):
        export_model(900, tmp_path / "m.zip", folds=["0"], folders=changeable)
    export_model(900, tmp_path / "m.zip", folders=changeable)
    install_model(tmp_path / "m.zip", tiny_weights, elsewhere)
    assert read_best(elsewhere.results / NAME) == best
    for model in (load_model(900, folders=elsewhere), load_model_zip(tmp_path / "m.zip", weights=tiny_weights)):
        assert len(model.heads) == 4 and len(model.largest_only) == len(prepared.dataset.labels.targets)
    shutil.rmtree(elsewhere.results / NAME / "cnn")
    (elsewhere.results / NAME / "best.json").write_text("{}")
    with pytest.raises(ModelError, match=r"best.json: exists already and differs; nothing was installed"):
        install_model(tmp_path / "m.zip", tiny_weights, elsewhere)
    assert not (elsewhere.results / NAME / "cnn").exists()


def test_card_licence_and_description_are_taken_along(
    prepared: Prepared, changeable: Folders, elsewhere: Folders, tmp_path: Path, tiny_weights: Path
) -> None:
    model = changeable.results / NAME / "cnn"
    (model / "MODEL_CARD.md").write_text("# Card")
    write_json(model / "dataset.json", {"licence": "CC0", "reference": "Me", "dataset": {"patient1": "/home/me"}})
    export_model(900, tmp_path / "m.zip", ["cnn"], licence="MIT", folders=changeable)
    (installed,) = install_model(tmp_path / "m.zip", tiny_weights, elsewhere)
    assert (installed.path / "MODEL_CARD.md").read_text() == "# Card"
    licences = (installed.path / "LICENSES.md").read_text()
    assert "## The model\n\nMIT\n" in licences and f"({NAME})\n\nCC0\n" in licences
    assert "patient1" not in (installed.path / "dataset.json").read_text()


def test_an_interrupted_installation_is_finished_by_the_next(
    trained: Folders, elsewhere: Folders, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(900, tmp_path / "m.zip", ["cnn", "linear"], folders=trained)
    put = package._put

    def killed(part: Path, place: Path) -> None:
        if part.name == "linear":
            raise KeyboardInterrupt
        put(part, place)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(package, "_put", killed)
        install_model(tmp_path / "m.zip", tiny_weights, elsewhere)
    assert [entry.name for entry in (elsewhere.results / NAME).iterdir()] == ["cnn"]
    assert len(install_model(tmp_path / "m.zip", tiny_weights, elsewhere)) == 2
    assert load_model(900, ["cnn", "linear"], folders=elsewhere)


def test_what_cannot_be_handed_on_is_refused(changeable: Folders, tmp_path: Path) -> None:
    results, target = changeable.results / NAME, tmp_path / "m.zip"
    target.write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"m.zip: exists already. Choose another name, or give --overwrite."):
        export_model(900, target, ["cnn"], folders=changeable)
    assert target.read_bytes() == b"mine"
    target.unlink()
    with pytest.raises(ModelError, match="several models are trained"):
        export_model(900, target, folders=changeable)
    shutil.copytree(results / "cnn", results / "my net")
    with pytest.raises(ModelError, match=r"my net/LICENSES.md: no name for a model zip. Rename the folder"):
        export_model(900, target, ["my net"], folders=changeable)
    (results / "linear" / "fold_0" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="damaged"):
        export_model(900, target, ["linear"], folders=changeable)
    assert list(tmp_path.glob("*.zip")) == []


def test_published_weights_are_named_and_need_not_be_there(
    prepared: Prepared, trained: Folders, tmp_path: Path, tiny_weights: Path
) -> None:
    export_model(900, tmp_path / "m.zip", ["cnn"], folders=trained)
    with package.unpacked(tmp_path / "m.zip", tiny_weights) as unpacked:
        own = unpacked.manifest.encoder
    published = replace(
        own, name="vit_h", origin="https://x", sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"
    )
    package._check_weights(published, None)
    with pytest.raises(
        WeightsError, match=r"heads need vit_h with the weights tiny.pth \(sha256 0000.* found a7bf3b02"
    ):
        package._check_weights(replace(published, sha256=64 * "0"), None)
    assert from_json(package.EncoderRecord, to_json(own), "") == own
