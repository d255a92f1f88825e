"""Models to hand on: one zip with heads, plan, description, licences and checksums; the encoder by name only.

model.zip
    manifest.json                       format version, data set, encoder and its sha256, sha256 and size of every file
    Dataset027_ACDC/
        best.json                       the choice of autosam_find_best_configuration, if it was what was exported
        cnn/                            one folder a configuration, several make an ensemble
            plan.json  dataset.json  LICENSES.md  (MODEL_CARD.md  expected_dice.json)
            fold_0/model.safetensors

Names of training cases, validation and checkpoints stay behind.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from autosam_net.data.encoding import Encoding
from autosam_net.data.plan import load_plan
from autosam_net.encoders.catalog import ENCODERS
from autosam_net.encoders.weights import weights_sha256
from autosam_net.errors import AutosamError, ModelError, UsageError, WeightsError
from autosam_net.evaluation.expected_dice import EXPECTED_DICE_FILE, read_expected_dice
from autosam_net.files import atomic_file, atomic_folder, remove_leftovers, sha256_of_files
from autosam_net.inference.archive import unpack_zip, write_zip
from autosam_net.inference.best import BEST_FILE, Best
from autosam_net.inference.choose import (
    Selection,
    choose_folds,
    load_chosen_models,
    load_model_folders,
    models_of,
    select_models,
)
from autosam_net.inference.licences import dataset_description, licences
from autosam_net.inference.model import Model
from autosam_net.inference.model_card import CARD_FILE
from autosam_net.inference.trained_head import read_head
from autosam_net.jsonio import from_json, load, read_json, write_json
from autosam_net.paths import Folders, encoders_folder, find_folders
from autosam_net.training.check_plan import load_checked_plan
from autosam_net.training.run import ModelFolder

FORMAT, FORMAT_VERSION = "autosam_net model", 1
MANIFEST = "manifest.json"
REQUIRED = ("plan.json", "dataset.json", "LICENSES.md")
OPTIONAL = (CARD_FILE, EXPECTED_DICE_FILE)
MODEL_FILE = re.compile(
    rf"(?P<dataset>Dataset\d{{3}}_[\w.+-]+)/(?:{re.escape(BEST_FILE)}|(?P<model>[\w+-][\w.+-]*)/"
    rf"(?:{'|'.join(map(re.escape, REQUIRED + OPTIONAL))}|fold_(?:\d+|all)/model\.safetensors))",
    re.ASCII,
)
"""All that a zip may hold besides the manifest: nothing in it is code, and no format can carry any."""


FOLD = re.compile(r"[\w+-][\w.+-]*/fold_(?:\d+|all)", re.ASCII)


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and checksum of a file in the zip."""

    size: int
    sha256: str


@dataclass(frozen=True)
class EncoderRecord:
    """The encoder that the heads work on, which is not in the zip.

    Attributes:
        sha256: of the weights' file; "none" for an encoder without weights.
        origin: address or package of the published weights; None for weights of one's own.
    """

    name: str
    sha256: str
    file: str | None
    origin: str | None
    licence: str | None


@dataclass(frozen=True)
class Manifest:
    """What a model zip says of itself; `files` is keyed by the path in the zip."""

    format: str
    format_version: int
    dataset: str
    encoder: EncoderRecord
    files: Mapping[str, FileRecord]


@dataclass(frozen=True)
class Package:
    """A verified model zip, unpacked into `folder`."""

    folder: Path
    manifest: Manifest

    @property
    def results(self) -> Path:
        """Return the folder that stands for `results/Dataset027_ACDC`."""
        return self.folder / self.manifest.dataset

    @property
    def models(self) -> list[ModelFolder]:
        """Return the models in it, sorted by name."""
        return [ModelFolder(entry) for entry in sorted(self.results.iterdir()) if entry.is_dir()]

    @property
    def names(self) -> list[str] | None:
        """Return the models to predict with, all of them; None where best.json says which."""
        return None if (self.results / BEST_FILE).is_file() else [model.path.name for model in self.models]


def export_model(
    dataset: int | str,
    target: Path | str,
    configurations: Sequence[str] | None = None,
    folds: Sequence[str] | None = None,
    licence: str | None = None,
    overwrite: bool = False,
    folders: Folders | None = None,
) -> Manifest:
    """Write a model zip; the same models make the same bytes.

    Args:
        configurations: names of model folders; several make an ensemble. If None, what
            `autosam_find_best_configuration` chose, with its folds and post-processing; else the only one.
        folds: of those trained; all if None.
        licence: of the model, as its makers give it.
        overwrite: replace `target`.

    Raises:
        ModelError: no model fits, one cannot be loaded, or its folder's name cannot be handed on.
        UsageError: a fold is not trained, or `target` is there already.
        WeightsError: the encoder's weights are missing: what cannot be loaded here is not handed on.
    """
    folders, target = folders or find_folders(), Path(target)
    if target.exists() and not overwrite:
        raise UsageError(f"{target}: exists already. Choose another name, or give --overwrite.")
    models = models_of(dataset, folders)
    where = models[0].path.parent
    selection = select_models(models, configurations, folds, where.name)
    if selection.best is not None and folds:
        raise UsageError(f"-f: {BEST_FILE} chose folds {', '.join(selection.best.folds)}. Choose others with -c.")
    load_model_folders(selection.models, selection.folds, "cpu")
    with tempfile.TemporaryDirectory() as place:
        _collect(selection, Path(place) / where.name, folders.raw / where.name, licence)
        manifest = _describe(selection.models[0], Path(place))
        write_json(Path(place) / MANIFEST, manifest)
        write_zip(target, Path(place))
    return manifest


def _collect(selection: Selection, target: Path, raw: Path, licence: str | None) -> None:
    """Copy what is handed on into `target`, which stands for the data set's folder of results."""
    for model in selection.models:
        source, folder = model.path, target / model.path.name
        plan = load_plan(model.plan_file)
        write_json(folder / "plan.json", replace(plan, encoding=replace(plan.encoding, weights=None)))
        description = dataset_description(plan, [source, raw])
        write_json(folder / "dataset.json", description)
        text = licences(plan, description, licence)
        if licence is None and (source / "LICENSES.md").is_file():  # of a model that was installed
            text = (source / "LICENSES.md").read_text(encoding="utf-8")
        (folder / "LICENSES.md").write_text(text, encoding="utf-8", newline="\n")
        heads = [f"fold_{fold}/model.safetensors" for fold in choose_folds(model, selection.folds)]
        for name in [*OPTIONAL, *heads]:
            if (source / name).is_file():
                (folder / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(source / name, folder / name)
    if selection.best is not None:
        shutil.copyfile(selection.models[0].path.parent / BEST_FILE, target / BEST_FILE)


def _describe(model: ModelFolder, folder: Path) -> Manifest:
    """Return the manifest of what was collected in `folder`.

    Raises:
        ModelError: a name that no zip may have.
    """
    encoder = _describe_encoder(load_plan(model.plan_file).encoding)
    files = _list_files(folder)
    for name in files:
        if not MODEL_FILE.fullmatch(name):
            raise ModelError(f"{name}: no name for a model zip. Rename the folder: letters, digits, _ + - and dots.")
    return Manifest(FORMAT, FORMAT_VERSION, model.path.parent.name, encoder, files)


def _describe_encoder(encoding: Encoding) -> EncoderRecord:
    name, sha256 = encoding.encoder, weights_sha256(encoding.encoder, encoding.weights_file)
    if encoding.weights_file is not None:
        return EncoderRecord(name, sha256, encoding.weights_file.name, None, None)
    source = ENCODERS.get(name).weights
    if source is None:
        return EncoderRecord(name, sha256, None, None, None)
    return EncoderRecord(name, sha256, source.file, source.origin, source.licence)


def _list_files(folder: Path) -> dict[str, FileRecord]:
    files = sorted((file.relative_to(folder).as_posix(), file) for file in folder.rglob("*") if file.is_file())
    return {name: FileRecord(file.stat().st_size, sha256_of_files([file])) for name, file in files}


def install_model(path: Path | str, weights: Path | None = None, folders: Folders | None = None) -> list[ModelFolder]:
    """Put the models of a zip into the results folder; what is there already must be the same.

    Args:
        weights: the encoder's weights, where they are not the published ones.

    Raises:
        ModelError: the zip is refused, or another model of that name is there; nothing was installed then.
        WeightsError: the heads need other weights of the encoder.
    """
    path, results = Path(path), (folders or find_folders()).results
    with unpacked(path, weights) as package:
        target = results / package.manifest.dataset
        parts = {part: target / part.name for part in sorted(package.results.iterdir())}
        new = {part: place for part, place in parts.items() if not place.exists()}
        for part, place in parts.items():
            if part not in new and _contents(part) != _contents(place):
                raise ModelError(
                    f"{place}: exists already and differs; nothing was installed. Move it away, or give another --root."
                )
        remove_leftovers(target)
        for part, place in sorted(new.items(), key=lambda entry: entry[0].is_file()):  # the choice after its models
            _put(part, place)
        return [ModelFolder(target / model.path.name) for model in package.models]


def _contents(path: Path) -> dict[str, FileRecord]:
    return {"": FileRecord(path.stat().st_size, sha256_of_files([path]))} if path.is_file() else _list_files(path)


def _put(part: Path, place: Path) -> None:
    if part.is_file():
        with atomic_file(place) as temporary:
            shutil.copyfile(part, temporary)
    else:
        with atomic_folder(place) as temporary:
            shutil.copytree(part, temporary, dirs_exist_ok=True)


def load_model_zip(
    path: Path | str, folds: Sequence[str] | None = None, device: str = "cpu", weights: Path | None = None
) -> Model:
    """Return the model in a zip, ready to predict; nothing is installed.

    Args:
        folds: of those in it; all if None.
        weights: the encoder's weights, where they are not the published ones.

    Raises:
        AutosamError: as `unpacked` and `load_model` do.
    """
    with unpacked(Path(path), weights) as package:
        return load_chosen_models(package.models, package.names, folds, device, package.manifest.dataset)


@contextmanager
def unpacked(path: Path, weights: Path | None = None) -> Iterator[Package]:
    """Yield a verified model zip, unpacked into a temporary folder; errors name the zip instead of that folder.

    Args:
        weights: the encoder's weights, entered into the unpacked plans.

    Raises:
        ModelError: not a model zip, a damaged one, or one that holds what no model needs.
        WeightsError: the heads need other weights of the encoder.
    """
    with tempfile.TemporaryDirectory(prefix="autosam_net-") as place:
        folder = Path(place)
        try:
            unpack_zip(path, folder)
            package = Package(folder, _read_manifest(folder))
            _check_files(package)
            _check_weights(package.manifest.encoder, weights)
            for model in package.models:
                _check_model(package, model, weights)
            _check_best(package)
            yield package
        except AutosamError as error:
            text = str(error).replace(str(folder), str(path))
            raise type(error)(text if str(path) in text else f"{path}: {text}") from error


def _read_manifest(folder: Path) -> Manifest:
    file = folder / MANIFEST
    if not file.is_file():
        raise ModelError(f"{folder}: no {MANIFEST} in it, so that it is no model of autosam_export_model.")
    content = read_json(file)
    found = (content.get("format"), content.get("format_version")) if isinstance(content, dict) else (None, None)
    if found != (FORMAT, FORMAT_VERSION):  # before its structure, which is another in other versions
        name, version = (str(entry)[:40] for entry in found)
        raise ModelError(
            f"{file}: format {name!r}, version {version}; expected {FORMAT!r}, version {FORMAT_VERSION}. "
            "Install the version of autosam_net that exported it."
        )
    manifest: Manifest = from_json(Manifest, content, str(file))
    return manifest


def _check_files(package: Package) -> None:
    """Refuse files that are missing, added, changed, or of a kind that no model has."""
    folder, manifest = package.folder, package.manifest
    found = _list_files(folder)
    del found[MANIFEST]
    for name in {**manifest.files, **found}:
        match = MODEL_FILE.fullmatch(name)
        if match is None or match["dataset"] != manifest.dataset:
            raise ModelError(f"{folder}: {name[:80]!r} is no file of a model of {manifest.dataset[:80]!r}.")
        if name not in found or name not in manifest.files:
            fault = "is missing" if name not in found else f"is not listed in {MANIFEST}"
            raise ModelError(f"{folder}: {name} {fault}. Get the file again.")
        if found[name] != manifest.files[name]:
            raise ModelError(f"{folder}: {name} has another size or checksum than {MANIFEST} says. Get the file again.")
    if not found.keys() - {f"{manifest.dataset}/{BEST_FILE}"}:
        raise ModelError(f"{folder}: no model in it.")


def _check_weights(encoder: EncoderRecord, weights: Path | None) -> None:
    if encoder.name not in ENCODERS:
        raise WeightsError(
            f"its heads need the encoder {encoder.name} (sha256 {encoder.sha256}), which is not known here. Get "
            f"{encoder.name}.safetensors and {encoder.name}.json, if it was pretrained, and put both into "
            f"{encoders_folder()}; else name the plugin that registers it with --plugin FILE."
        )
    found = _weights_here(encoder, weights)
    if found != encoder.sha256:
        raise WeightsError(
            f"its heads need {encoder.name} with the weights {encoder.file} (sha256 {encoder.sha256}), found "
            f"{found or 'none'}. Name that file with --weights FILE."
        )


def _weights_here(encoder: EncoderRecord, weights: Path | None) -> str | None:
    """Return the sha256 of the weights that would be loaded, None where those of one's own are missing."""
    try:
        return weights_sha256(encoder.name, weights)
    except WeightsError:
        if weights is None and encoder.origin is None:
            return None
        raise


def _check_model(package: Package, model: ModelFolder, weights: Path | None) -> None:
    """Refuse a model that could not be loaded; enter `weights` into its plan."""
    folds = model.trained_folds()
    missing = [name for name in REQUIRED if not (model.path / name).is_file()]
    if missing or not folds:
        raise ModelError(f"{model.path}: no {missing[0] if missing else 'fold'} in it. Get the file again.")
    plan, manifest = load_checked_plan(model.plan_file), package.manifest
    if (plan.dataset, plan.encoding.encoder, plan.encoding.weights) != (manifest.dataset, manifest.encoder.name, None):
        raise ModelError(f"{model.plan_file}: of another data set or encoder, or with a path to weights.")
    if weights is not None:
        plan = replace(plan, encoding=replace(plan.encoding, weights=str(weights.absolute())))
        write_json(model.plan_file, plan)
    read_expected_dice(model.path)
    for fold in folds:
        read_head(model.fold(fold) / "model.safetensors", plan)


def _check_best(package: Package) -> None:
    """Refuse a choice that is not of the models in the zip; the names in it become paths later."""
    file = package.results / BEST_FILE
    if not file.is_file():
        return
    best = load(Best, file)
    models = {model.path.name: set(model.trained_folds()) for model in package.models}
    chosen = {name: set(best.folds) for name in best.choice.configurations}
    paths = all(FOLD.fullmatch(name) for name in best.models)
    if models != chosen or not models.keys() <= best.plans.keys() or not paths:
        raise ModelError(f"{file}: not the choice of the models in it.")
