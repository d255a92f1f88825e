"""Zips that no model is in: each is refused in one line with exit code 2, and nothing is installed or unpacked."""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autosam_net.commands import export_model, predict
from autosam_net.commands.install_model import main
from autosam_net.errors import AutosamError
from autosam_net.inference.package import unpacked
from autosam_net.training.run import TrainingOptions
from autosam_net.training.train import train_head
from tests.support import Prepared, only_line, snapshot

NAME = "Dataset900_Example"
MODEL = f"{NAME}/linear"
HEAD = f"{MODEL}/fold_0/model.safetensors"
PLAN = f"{MODEL}/plan.json"
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def exported(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model zip of one fold, in a folder of its own."""
    folders = replace(prepared.folders, results=tmp_path_factory.mktemp("exported") / "results")
    train_head(prepared.dataset, prepared.plan, "linear", 0, TrainingOptions(epochs=1), folders)
    zip_file = folders.results.parent / "model.zip"
    assert export_model.main(["900", "-o", str(zip_file), "--root", str(folders.results.parent)]) == 0
    return zip_file


@pytest.fixture
def weights(tiny_weights: Path) -> list[str]:
    return ["--weights", str(tiny_weights)]


def contents(zip_file: Path) -> Files:
    with zipfile.ZipFile(zip_file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(files: Files) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return memory.getvalue()


def listed(files: Files) -> Files:
    """Return the files with a manifest that has the size and checksum of each, as a careful attacker would."""
    manifest = json.loads(files["manifest.json"])
    others = {name: content for name, content in files.items() if name != "manifest.json"}
    manifest["files"] = {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in others.items()
    }
    return {"manifest.json": json.dumps(manifest).encode(), **others}


@dataclass(frozen=True)
class Hostile:
    """A zip that must be refused: the files of a good one are changed, then listed in the manifest and packed."""

    name: str
    expected: str
    change: Callable[[Files], Files | None] = lambda files: None
    pack: Callable[[Files], bytes] = packed
    honest: bool = True


def added(name: str, content: bytes = b"evil") -> Callable[[Files], Files]:
    return lambda files: files | {name: content}


def without(name: str) -> Callable[[Files], Files]:
    return lambda files: {key: content for key, content in files.items() if key != name}


def moved(old: str, new: str) -> Callable[[Files], Files]:
    return lambda files: {key.replace(old, new): content for key, content in files.items()}


def edited(name: str, *keys: str, value: Any) -> Callable[[Files], Files]:
    """Return a change of one value in a JSON file."""

    def change(files: Files) -> Files:
        document = json.loads(files[name])
        place = document
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        return files | {name: json.dumps(document).encode()}

    return change


def metadata(values: dict[str, str]) -> Callable[[Files], Files]:
    """Return a change of the head's metadata."""

    def change(files: Files) -> Files:
        size = struct.unpack("<Q", files[HEAD][:8])[0]
        header = json.loads(files[HEAD][8 : 8 + size])
        header["__metadata__"] = values
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        return files | {HEAD: struct.pack("<Q", len(text)) + text + files[HEAD][8 + size :]}

    return change


def head_is(make: Callable[[bytes], bytes]) -> Callable[[Files], Files]:
    return lambda files: files | {HEAD: make(files[HEAD])}


def with_entry(**attributes: Any) -> Callable[[Files], bytes]:
    """Return a packing in which the plan's entry has other attributes."""

    def pack(files: Files) -> bytes:
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w") as archive:
            for name, content in files.items():
                info = zipfile.ZipInfo(name)
                for key, value in attributes.items() if name == PLAN else ():
                    setattr(info, key, value)
                archive.writestr(info, content)
        return memory.getvalue()

    return pack


def deflated_bomb(files: Files) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, bytes(50_000_000) if name == HEAD else content)
    return memory.getvalue()


def overlapping(files: Files) -> bytes:
    """Return a zip whose list names the bytes of one file a thousand times, under names of the same length."""
    data = packed(files)
    end = data.rindex(b"PK\5\6")
    offset = struct.unpack("<I", data[end + 16 : end + 20])[0]
    at = data.rindex(HEAD.encode()) - 46
    entry = data[at : at + 46 + len(HEAD)]
    copies = [entry.replace(b"fold_0", f"f{index:05d}".encode()) for index in range(1000)]
    directory = data[offset:end] + b"".join(copies)
    count = len(files) + len(copies)
    return data[:offset] + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), offset, 0)


def lying_about_size(files: Files) -> bytes:
    data = bytearray(packed(files))
    at = data.rindex(PLAN.encode()) - 46
    struct.pack_into("<II", data, at + 20, 2**31, 2**31)
    return bytes(data)


def encrypted(files: Files) -> bytes:
    data = bytearray(packed(files))
    for at in (data.index(PLAN.encode()) - 30 + 6, data.rindex(PLAN.encode()) - 46 + 8):
        data[at] |= 1
    return bytes(data)


def renamed(new: str) -> Callable[[Files], bytes]:
    """Return a packing in which the plan's entry has a name that zipfile would not write."""
    raw = new.encode().ljust(len(PLAN), b"x")
    assert len(raw) == len(PLAN)
    return lambda files: packed(files).replace(PLAN.encode(), raw)


def twice(files: Files) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(PLAN, b"{}")
    return memory.getvalue()


BEST = {
    "dataset": NAME,
    "choice": {"configurations": ["linear"], "keep_largest": []},
    "folds": ["0"],
    "cases": 1,
    "candidates": {},
    "cross_validation": {"mean": None, "classes": {}},
    "nested": None,
    "missing_folds": {},
    "models": {},
    "plans": {"linear": ""},
    "reasons": {},
}


def best(**values: Any) -> Callable[[Files], Files]:
    return added(f"{NAME}/best.json", json.dumps(BEST | values).encode())


PATH = "is a path with other signs than"
KIND = "is no file of a model of 'Dataset900_Example'"
HOSTILE = [
    Hostile("no zip", "not a zip, or a damaged", pack=lambda files: b"this is no zip"),
    Hostile("empty", "not a zip, or a damaged", pack=lambda files: b""),
    Hostile("no entries", "no manifest.json in it", pack=lambda files: packed({})),
    Hostile("another zip", "no manifest.json in it", pack=lambda files: packed({"readme.txt": b"hello"})),
    Hostile("end cut off", "not a zip, or a damaged", pack=lambda files: packed(files)[:-30]),
    Hostile("half of it", "not a zip, or a damaged", pack=lambda files: packed(files)[: len(packed(files)) // 2]),
    Hostile("a bit flipped", "not a zip, or a damaged", pack=lambda f: packed(f).replace(b'"version"', b'"versiom"')),
    # paths
    Hostile("above", PATH, added("../evil")),
    Hostile("above, below the folder", PATH, added(f"{NAME}/../../evil")),
    Hostile("here", PATH, added(f"{NAME}/./evil")),
    Hostile("absolute", PATH, added("/tmp/evil")),
    Hostile("drive", PATH, added("C:/evil")),
    Hostile("drive, relative", PATH, added("C:evil")),
    Hostile("backslashes", PATH, added("..\\evil")),
    Hostile("share", PATH, added("\\\\server\\evil")),
    Hostile("home", PATH, added("~/evil")),
    Hostile("hidden", PATH, added(".bashrc")),
    Hostile("nothing between", PATH, added(f"{NAME}//evil")),
    Hostile("escape sequence", PATH, added("\x1b[2Jevil")),
    Hostile("line break", PATH, added("evil\nevil")),
    Hostile("not ASCII", PATH, added("ev\u0131l")),
    Hostile("zero byte", PATH, pack=renamed(f"{NAME}/a\0")),
    Hostile("folder", PATH, added(f"{NAME}/folder/", b"")),
    # kinds of entries
    Hostile("link", "is a link or", pack=with_entry(external_attr=(stat.S_IFLNK | 0o777) << 16)),
    Hostile("device", "is a link or", pack=with_entry(external_attr=(stat.S_IFCHR | 0o666) << 16)),
    Hostile("compressed", "is compressed", pack=with_entry(compress_type=zipfile.ZIP_DEFLATED)),
    Hostile("bomb", "is compressed", pack=deflated_bomb),
    Hostile("bomb of overlaps", "bytes that claim to unpack to", pack=overlapping),
    Hostile("bomb by promise", "bytes that claim to unpack to", pack=lying_about_size),
    Hostile("encrypted", "is encrypted", pack=encrypted),
    Hostile("a name twice", "is in it twice", pack=twice),
    Hostile("a name in two cases", "is in it twice", added(PLAN.upper())),
    Hostile("file and folder", "is in it twice", added(f"{PLAN}/evil")),
    # the manifest
    Hostile("no manifest", "no manifest.json in it", without("manifest.json"), honest=False),
    Hostile("no JSON", "not valid JSON", added("manifest.json", b"{"), honest=False),
    Hostile("no UTF-8", "not valid JSON", added("manifest.json", b"\xff\xfe"), honest=False),
    Hostile("a list", "format 'None', version None; expected", added("manifest.json", b"[]"), honest=False),
    Hostile("brackets", "not valid JSON", added("manifest.json", b"[" * 200_000), honest=False),
    Hostile("a long number", "not valid JSON", added("manifest.json", b"9" * 10_000), honest=False),
    Hostile("other format", "format 'x', version 1; expected", edited("manifest.json", "format", value="x")),
    Hostile("later version", "version 2; expected 'autosam_net", edited("manifest.json", "format_version", value=2)),
    Hostile("version in words", "version one; expected", edited("manifest.json", "format_version", value="one")),
    Hostile("unknown key", "unknown key 'run'", edited("manifest.json", "run", value="evil")),
    Hostile(
        "data set elsewhere", "is no file of a model of '../..'", edited("manifest.json", "dataset", value="../..")
    ),
    Hostile("other data set", "is no file of a model of", edited("manifest.json", "dataset", value="Dataset001_A")),
    Hostile("file missing", "plan.json is missing", without(PLAN), honest=False),
    Hostile("file not listed", "is not listed in", added(f"{MODEL}/fold_1/model.safetensors"), honest=False),
    Hostile(
        "wrong checksum", "another size or checksum", lambda f: f | {PLAN: f[PLAN].replace(b"1", b"2")}, honest=False
    ),
    Hostile("wrong size", "another size or checksum", lambda files: files | {PLAN: files[PLAN] + b" "}, honest=False),
    Hostile("no model", "no model in it", lambda files: {"manifest.json": files["manifest.json"]}),
    # what is in it
    Hostile("pickle", KIND, added(f"{MODEL}/fold_0/model.pth")),
    Hostile("pickle in place of the head", KIND, moved("model.safetensors", "model.pkl")),
    Hostile("program", KIND, added(f"{MODEL}/plugin.py")),
    Hostile("checkpoint", KIND, added(f"{MODEL}/fold_0/checkpoint.safetensors")),
    Hostile("cases", KIND, added(f"{MODEL}/fold_0/run.json")),
    Hostile("beside the data set", KIND, added("setup.cfg")),
    Hostile("in another data set", KIND, added("Dataset901_Other/linear/plan.json")),
    Hostile("fold without number", KIND, moved("fold_0", "fold_x")),
    Hostile("no plan", "no plan.json in it", without(PLAN)),
    Hostile("no licences", "no LICENSES.md in it", without(f"{MODEL}/LICENSES.md")),
    Hostile("no head", "no fold in it", without(HEAD)),
    Hostile("plan is no JSON", "plan.json: not valid JSON", added(PLAN, b"no")),
    Hostile("plan with an unknown key", "unknown key 'shell'", edited(PLAN, "shell", value="evil")),
    Hostile("plan of another version", "plan of version 99", edited(PLAN, "version", value=99)),
    Hostile("plan of other data", "of another data set or", edited(PLAN, "dataset", value="Dataset901_Other")),
    Hostile("plan with a path", "with a path to weights", edited(PLAN, "encoding", "weights", value="/etc/passwd")),
    Hostile("plan of another encoder", "or encoder, or", edited(PLAN, "encoding", "encoder", value="vit_b")),
    Hostile("another plan", "trained by another plan", edited(PLAN, "preprocessing", "spacing", value=1.0)),
    Hostile(
        "other weights", "Name that file with --weights", edited("manifest.json", "encoder", "sha256", value="0" * 64)
    ),
    Hostile("unknown encoder", "the encoder evil (sha256", edited("manifest.json", "encoder", "name", value="evil")),
    Hostile(
        "expected Dice is no JSON", "expected_dice.json: not valid JSON", added(f"{MODEL}/expected_dice.json", b"no")
    ),
    Hostile("expected Dice of nothing", "expected_dice.json", added(f"{MODEL}/expected_dice.json", b"{}")),
    # heads
    Hostile("head is text", "damaged", head_is(lambda head: b"no head")),
    Hostile("head is empty", "damaged", head_is(lambda head: b"")),
    Hostile("head is a pickle", "damaged", head_is(lambda head: b"\x80\x04cos\nsystem\n(S'true'\ntR.")),
    Hostile("head cut off", "damaged", head_is(lambda head: head[:-4])),
    Hostile("header of 2^63 bytes", "damaged", head_is(lambda head: struct.pack("<Q", 2**63) + head[8:])),
    Hostile("header of 200 MB", "damaged", head_is(lambda head: struct.pack("<Q", 200_000_000) + head[8:])),
    Hostile("header is no JSON", "damaged", head_is(lambda head: head[:8] + b"!" + head[9:])),
    Hostile(
        "tensors beyond the end", "damaged", head_is(lambda h: h.replace(b'"data_offsets":[0,', b'"data_offsets":[9,'))
    ),
    Hostile("unknown type", "damaged", head_is(lambda head: head.replace(b'"F32"', b'"X32"'))),
    Hostile("no metadata", "not written by this version", metadata({})),
    Hostile("metadata is no JSON", "not written by this version", metadata({"autosam_net": "{"})),
    Hostile("metadata of brackets", "not written by this version", metadata({"autosam_net": "[" * 100_000})),
    Hostile("metadata is a list", "not written by this version", metadata({"autosam_net": "[]"})),
    Hostile("head of no version", "model of version None", metadata({"autosam_net": "{}"})),
    Hostile("head of no kind", "head: expected a text", metadata({"autosam_net": '{"version":2}'})),
    # the choice
    Hostile("choice is no JSON", "best.json: not valid JSON", added(f"{NAME}/best.json", b"no")),
    Hostile("choice of others", "not the choice of", best(choice={"configurations": ["cnn"], "keep_largest": []})),
    Hostile("choice of other folds", "not the choice of", best(folds=["0", "1"])),
    Hostile("choice that leads out", "not the choice of", best(models={"../../../etc/fold_0": ""})),
    Hostile("choice without its plan", "not the choice of", best(plans={})),
]


def made(case: Hostile, exported: Path, folder: Path) -> Path:
    files = contents(exported)
    files = case.change(files) or files
    files = listed(files) if case.honest else files
    (folder / "model.zip").write_bytes(case.pack(files))
    return folder / "model.zip"


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_a_hostile_zip_is_refused(
    exported: Path,
    weights: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    case: Hostile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    zip_file = made(case, exported, tmp_path)
    before = snapshot(tmp_path)
    assert main([str(zip_file), *weights, "--root", str(tmp_path / "root")]) == 2
    line = only_line(capsys)
    assert case.expected in line and str(zip_file) in line and str(tmp_path / "tmp") not in line
    assert {**snapshot(tmp_path), "tmp": None} == {**before, "tmp": None}


def test_a_good_zip_changed_and_listed_again_is_accepted(exported: Path, weights: list[str], tmp_path: Path) -> None:
    good = made(Hostile("good", ""), exported, tmp_path)
    assert main([str(good), *weights, "--root", str(tmp_path)]) == 0
    (tmp_path / "best").mkdir()
    with_choice = made(Hostile("good", "", best()), exported, tmp_path / "best")
    assert main([str(with_choice), *weights, "--root", str(tmp_path / "best")]) == 0


def test_the_documentation_counts_them() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text(encoding="utf-8")
    table = text[text.index("| what | zips |") :].split("\n\n")[0]
    assert f"{len(HOSTILE)} hostile ones" in text
    assert sum(map(int, re.findall(r"\| (\d+) \|$", table, re.MULTILINE))) == len(HOSTILE)


@pytest.mark.parametrize("case", [case for case in HOSTILE if case.name in ("above", "link", "bomb", "pickle")])
def test_prediction_refuses_it_too(
    exported: Path, weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], case: Hostile
) -> None:
    zip_file = made(case, exported, tmp_path)
    words = ["-m", str(zip_file), *weights, "-i", str(tmp_path), "-o", str(tmp_path / "out")]
    assert predict.main(words) == 2
    assert case.expected in only_line(capsys)
    assert not (tmp_path / "out").exists()


def test_damage_anywhere_is_found_or_changes_nothing(exported: Path, tiny_weights: Path, tmp_path: Path) -> None:
    """75 zips with some bits changed, 25 cut off: nothing but what was exported is ever taken for a model."""
    data, files, rng = exported.read_bytes(), contents(exported), np.random.default_rng(0)
    damaged = tmp_path / "damaged.zip"
    refused = 0
    for attempt in range(100):
        changed = bytearray(data)
        if attempt < 75:
            for place in rng.integers(len(data) if attempt % 2 else 3000, size=rng.integers(1, 5)):
                changed[-1 - place] ^= 1 << rng.integers(8)  # every other one near the end, where the headers are
        else:
            del changed[rng.integers(len(data)) :]
        damaged.write_bytes(changed)
        try:
            with unpacked(damaged, tiny_weights) as package:
                heads = [head.relative_to(package.folder) for head in package.folder.rglob("*.safetensors")]
                assert [(package.folder / head).read_bytes() for head in heads] == [files[HEAD]]
        except AutosamError:
            refused += 1
    assert refused > 75


def test_a_model_that_is_there_is_kept(
    exported: Path, weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(exported), *weights, "--root", str(tmp_path)]
    assert main(words) == 0
    assert f"autosam_predict -d {NAME} -c linear -i INPUT -o OUTPUT --root {tmp_path}" in capsys.readouterr().out
    before = snapshot(tmp_path)
    assert main(words) == 0
    assert snapshot(tmp_path) == before
    (tmp_path / "results" / PLAN).write_text("mine")
    before = snapshot(tmp_path)
    capsys.readouterr()
    assert main(words) == 2
    assert "linear: exists already and differs; nothing was installed. Move it away" in only_line(capsys)
    assert snapshot(tmp_path) == before


def test_weights_of_ones_own_are_asked_for(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(exported), "--root", str(tmp_path)]) == 2
    assert "heads need tiny_for_tests with the weights tiny.pth (sha256" in only_line(capsys)
    (tmp_path / "other.pth").write_bytes(b"other")
    assert main([str(exported), "--weights", str(tmp_path / "other.pth"), "--root", str(tmp_path)]) == 2
    assert "Name that file with --weights FILE" in only_line(capsys)
    assert not (tmp_path / "results").exists()


def test_no_such_zip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "model.zip"), "--root", str(tmp_path)]) == 2
    assert "model.zip: no such file" in only_line(capsys)
