"""The comparison of strategies: which trainings it makes, what it keeps, and what it refuses."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from autosam_net.commands import compare_strategies
from autosam_net.commands.compare_strategies import main
from autosam_net.data.configuration import STRATEGIES
from autosam_net.data.plan import StepEstimate
from autosam_net.inference import validate
from autosam_net.jsonio import write_json
from tests.support import TINY, Prepared, Recorder


@pytest.fixture
def root(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a root with the phantom's data, a plan with a head `vit`, and results of its own."""
    (tmp_path / "raw").symlink_to(prepared.root / "raw")
    source = prepared.folders.preprocessed / prepared.dataset.name
    target = tmp_path / "preprocessed" / prepared.dataset.name
    target.mkdir(parents=True)
    for file in source.iterdir():
        if file.name != "plan.json":
            (target / file.name).symlink_to(file)
    vit = replace(prepared.plan.configuration("linear"), head="vit")
    configurations = {**prepared.plan.configurations, "vit": vit}
    estimates = {"tune:encoder+head:lora": StepEstimate(seconds=100.0, disk_mib=10.0, memory_mib=3000.0)}
    write_json(target / "plan.json", replace(prepared.plan, configurations=configurations, estimates=estimates))
    monkeypatch.setattr(compare_strategies, "in_own_process", lambda function, item, _: function(item))
    monkeypatch.setattr("autosam_net.evaluation.strategies._draw", lambda *_: None)
    return tmp_path


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    facts = {
        "seconds": {"training": 60.0, "encoding": 0.0},
        "iterations": 10,
        "parameters": {"head": {"all": 9, "trained": 9}},
        "peak_memory_mib": {"cpu": 100},
    }
    recorder = Recorder(facts, lambda configuration, options: 0.5)
    monkeypatch.setattr(validate, "train_and_validate", recorder)
    return recorder


def call(root: Path, *words: str) -> int:
    return main(["900", "--labelled", "1", *words, "--root", str(root), "--device", "cpu"])


def rows(root: Path, budget: str) -> list[dict[str, str]]:
    path = root / "results" / "Dataset900_Example" / "strategies" / budget / "table.csv"
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_all_strategies_are_compared_at_equal_time_and_at_equal_steps(
    root: Path, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(root, "--max-minutes", "20", "--steps", "50") == 0
    in_time, in_steps = recorder.runs[: len(STRATEGIES)], recorder.runs[len(STRATEGIES) :]
    assert [options.tune for _, options in in_time] == [options.tune for _, options in in_steps] == list(STRATEGIES)
    assert {(options.max_minutes, options.epochs) for _, options in in_time} == {(20.0, None)}
    assert {(options.max_minutes, options.epochs) for _, options in in_steps} == {(None, 10), (None, 5)}
    assert [row["configuration"] for row in rows(root, "20_minutes")] == [f"{TINY} {tune}" for tune in STRATEGIES]
    assert len(rows(root, "50_steps")) == len(STRATEGIES)
    shown = capsys.readouterr().out
    assert "vit, 20 minutes each" in shown and f"| {TINY} head:lora | 1 | 1 | 9 |" in shown
    assert call(root, "--max-minutes", "20", "--steps", "50") == 0
    assert len(recorder.runs) == 2 * len(STRATEGIES), "what is there is not trained again"


def test_twins_begin_with_the_head_or_tune_the_last_blocks(root: Path, recorder: Recorder) -> None:
    words = ("--strategies", "encoder+head:lora", "--from-head", "--last-blocks", "all", "2")
    words += ("--seeds", "2", "--steps", "10")
    assert call(root, *words) == 0
    asked = [(o.tune, o.last_blocks, o.from_head) for _, o in recorder.runs if o.seed == 0]
    lora = "encoder+head:lora"
    assert asked == [("head", None, False), *((lora, last, start) for last in (None, 2) for start in (False, True))]
    table = {row["configuration"]: row for row in rows(root, "10_steps")}
    assert table[f"{TINY} {lora}, last 2 blocks, from the head"]["minutes mean"] == "2.0", "the head's minute counts"
    assert {row["runs"] for row in table.values()} == {"2"}


def test_other_encoders_get_a_configuration_of_their_own(root: Path, recorder: Recorder) -> None:
    words = ("--encoders", TINY, "lite_medsam", "--head", "cnn", "--steps", "10")
    assert call(root, *words) == 0
    assert {name for name, _ in recorder.runs} == {"cnn", "cnn_lite_medsam"}
    assert {options.tune for _, options in recorder.runs} == {t for t in STRATEGIES if not t.startswith("head:")}


def test_a_stopped_command_has_lost_nothing_and_goes_on(root: Path, recorder: Recorder) -> None:
    recorder.stop_at = 2
    assert call(root, "--steps", "10") == 130
    assert len(rows(root, "10_steps")) == 2
    recorder.stop_at = None
    assert call(root, "--steps", "10") == 0
    assert len(recorder.runs) == len(STRATEGIES)


def test_other_settings_are_no_part_of_the_table(
    root: Path, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(root, "--steps", "10", "--strategies", "head") == 0
    (file,) = root.glob("results/*/strategies/10_steps/*/*/fold_0/run.json")
    text = file.read_text()
    file.write_text(text.replace('"epochs": 2', '"epochs": 7'))
    assert call(root, "--steps", "10", "--strategies", "head") == 2
    assert "trained with epochs 7. Move it away" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--max-minutes M, --steps N: give one of them or both"),
        (("--steps", "7"), "--steps 7: epochs have 5 steps. Give a multiple of that."),
        (("--steps", "-5"), "--steps -5: give a number above 0"),
        (("--steps", "10", "--strategies", "lora"), "--tune lora: "),
        (("--steps", "10", "--head", "linear", "--strategies", "head:lora"), "--strategies head:lora: the head linear"),
        (("--steps", "10", "--strategies", "head", "--last-blocks", "2"), "--last-blocks: goes with encoder+head:lora"),
        (
            ("--steps", "10", "--max-memory", "2"),
            "tune:encoder+head:lora needs 2.9 GiB of memory, --max-memory allows 2",
        ),
        (("--steps", "10", "--last-blocks", "two"), "--last-blocks two: give numbers above 0, or all"),
        (("--steps", "10", "--encoders", "vit_z"), "unknown encoder 'vit_z'"),
        (("--steps", "10", "--encoders", "image"), "configurations: vit_image: encoder: found image"),
        (("--steps", "10", "--head", "vitt"), "no configuration 'vitt'; did you mean 'vit'"),
        (("--steps", "10", "--fold", "all"), "fold all holds no case out"),
    ],
)
def test_a_users_error_is_one_line_before_anything_is_trained(
    root: Path, recorder: Recorder, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert call(root, *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert recorder.runs == []
    assert not (root / "results").exists()


def test_each_training_has_a_process_of_its_own(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Callable[..., object], object, str]] = []
    monkeypatch.setattr(compare_strategies, "in_own_process", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(compare_strategies._Table, "_records", lambda _: [])
    monkeypatch.setattr("autosam_net.evaluation.strategies.write_strategies", lambda *_: None)
    assert call(root, "--steps", "10", "--strategies", "head") == 0
    assert [name for _, _, name in asked] == ["Dataset900_Example/vit_labelled1_seed0"]
