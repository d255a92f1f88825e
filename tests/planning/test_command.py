from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autosam_net.data.fingerprint import Fingerprint
from autosam_net.data.plan import load_plan
from autosam_net.data.splits import load_splits
from autosam_net.encoders.catalog import ENCODERS
from autosam_net.jsonio import load, write_json
from planning.command import main
from tests.planning.conftest import CASES, RawDataset
from tests.planning.figures import probe
from tests.planning.test_check_dataset import SPOILED
from tests.support import TINY, only_line, snapshot

Run = Callable[..., int]


@pytest.fixture
def command(raw: RawDataset, tiny_weights: Path) -> Run:
    """Return the command on the data set 5, in this process, with the tiny encoder."""
    assert TINY in ENCODERS

    def call(*words: str, identifiers: Sequence[str] = ("5",)) -> int:
        encoder = ["--encoder", TINY, "--weights", str(tiny_weights)]
        return main(
            ["-d", *identifiers, "--root", str(raw.root), "--workers", "1", "--device", "cpu", *encoder, *words]
        )

    return call


@pytest.fixture
def run(command: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return the command without the seconds that measuring the speed takes."""
    monkeypatch.setattr("planning.probe.probe_speed", lambda machine, encoding, labels: probe(machine))
    return command


def test_from_raw_data_to_preprocessed_cases(raw: RawDataset, command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert command() == 0
    printed = capsys.readouterr().out
    plan = load_plan(raw.preprocessed / "plan.json")
    for decision, reason in plan.reasons.items():
        assert decision in printed
        assert reason in printed
    assert "train:cnn" in printed
    assert "\x1b" not in printed  # plain lines off a terminal
    assert len(load_splits(raw.preprocessed / "splits_final.json")) == plan.folds == 3
    assert (raw.preprocessed / "dataset.json").read_bytes() == (raw.folder / "dataset.json").read_bytes()
    assert load(Fingerprint, raw.preprocessed / "dataset_fingerprint.json").dataset == raw.folder.name
    assert sorted(path.name for path in (raw.preprocessed / "cases").iterdir()) == sorted(CASES)


def test_a_second_run_touches_nothing(raw: RawDataset, run: Run) -> None:
    run()
    before = snapshot(raw.preprocessed)
    assert run() == 0
    assert snapshot(raw.preprocessed) == before


def test_a_second_run_needs_no_torch(raw: RawDataset, run: Run) -> None:
    run()
    shutil.copy(raw.preprocessed / "plan.json", raw.root / "kept.json")
    program = (
        "import sys; from planning.command import main; code = main(sys.argv[1:]); "
        "sys.exit(code or ('torch' in sys.modules) * 7)"
    )
    words = ["-d", "5", "--root", str(raw.root), "--workers", "1"]
    result = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert (raw.root / "kept.json").read_bytes() == (raw.preprocessed / "plan.json").read_bytes()


def test_an_edited_plan_is_carried_out(raw: RawDataset, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    run()
    path = raw.preprocessed / "plan.json"
    plan = load_plan(path)
    write_json(path, replace(plan, preprocessing=replace(plan.preprocessing, spacing=2.0)))
    assert run() == 0
    assert "edited by hand" in caplog.text
    array = np.load(raw.preprocessed / "cases" / CASES[0] / "image.npy")
    assert array.shape == (1, 3, 10, 12)


def test_a_wrongly_edited_plan_is_refused(raw: RawDataset, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("--plan-only")
    path = raw.preprocessed / "plan.json"
    path.write_text(path.read_text().replace('"overlap": 0.25', '"overlap": 7.5'))
    capsys.readouterr()
    assert run() == 2
    assert "plan.json: encoding: overlap: found 7.5, expected 0 to 0.75" in only_line(capsys)
    assert not (raw.preprocessed / "cases").exists()


@pytest.mark.parametrize(("flag", "missing"), [("--check-only", "plan.json"), ("--plan-only", "cases")])
def test_stopping_early(raw: RawDataset, run: Run, flag: str, missing: str) -> None:
    assert run(flag) == 0
    assert not (raw.preprocessed / missing).exists()


def test_several_data_sets_in_one_call(raw: RawDataset, run: Run) -> None:
    shutil.copytree(raw.folder, raw.folder.parent / "Dataset006_Again")
    assert run("--plan-only", identifiers=("5", "Dataset006_Again")) == 0
    assert (raw.folders.preprocessed / "Dataset006_Again" / "plan.json").is_file()


@pytest.mark.parametrize(("spoil", "case", "text", "cure"), SPOILED, ids=[entry[0].__name__ for entry in SPOILED])
def test_wrong_data_end_in_one_line_and_nothing_half_written(
    raw: RawDataset,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[RawDataset], None],
    case: str | None,
    text: str,
    cure: str,
) -> None:
    spoil(raw)
    assert run() == 2
    line = only_line(capsys)
    assert case is None or case in line
    assert cure in line
    written = {path.name for path in raw.preprocessed.rglob("*")} - {"fingerprints"}
    assert written <= {f"{name}.json" for name in CASES}  # the figures of sound cases, each whole
    assert not list(raw.root.rglob(".writing-*"))


def test_many_problems_are_listed_and_counted(
    raw: RawDataset, run: Run, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for case in CASES[:3]:
        raw.label(case).unlink()
    assert run() == 2
    assert "3 problems in 3 cases of Dataset005_Boxes; see above" in capsys.readouterr().err
    assert all(any(case in message for message in caplog.messages) for case in CASES[:3])


def test_an_empty_folder_and_an_unknown_data_set(raw: RawDataset, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(identifiers=("27",)) == 2
    assert "no data set 27; known: Dataset005_Boxes" in only_line(capsys)
    for name in ("imagesTr", "labelsTr"):
        shutil.rmtree(raw.folder / name)
        (raw.folder / name).mkdir()
    assert run() == 2
    assert "imagesTr: found no *.nii.gz file; expected images CASE_0000.nii.gz" in only_line(capsys)
    assert not raw.folders.preprocessed.exists()


def test_a_single_patient_cannot_be_split(raw: RawDataset, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    raw.describe(group_pattern="patient")
    assert run() == 2
    assert "Label at least two patients" in only_line(capsys)
    assert not (raw.preprocessed / "plan.json").exists()


@pytest.mark.parametrize("words", [["--replann"], ["--repl"], ["-e", "vit_b"]])
def test_a_typo_in_a_flag(raw: RawDataset, run: Run, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*words)
    assert caught.value.code == 2
    assert f"unrecognized arguments: {words[0]}" in capsys.readouterr().err
    assert not raw.folders.preprocessed.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--encoder", "image"], "--encoder image: no encoder: the slices themselves"),
        (["--encoder", "lite_medsan"], "unknown encoder 'lite_medsan'; did you mean 'lite_medsam'?"),
        (["--weights", "/nowhere/sam.pth"], "--weights /nowhere/sam.pth: no such file"),
        (["--workers", "0"], "--workers 0: give 1 or more"),
    ],
)
def test_wrong_values_of_flags(
    raw: RawDataset, run: Run, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run(*words) == 2
    assert message in only_line(capsys)
    assert not raw.folders.preprocessed.exists()
