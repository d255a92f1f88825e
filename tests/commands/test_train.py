"""The training command's own work: folds, limits and one-line errors."""

from __future__ import annotations

import re
import shutil

import pytest

from autosam_net.commands.train import main, parse_folds
from autosam_net.errors import UsageError
from tests.support import Prepared


def test_folds() -> None:
    assert parse_folds("0-4") == ["0", "1", "2", "3", "4"]
    assert parse_folds("all") == ["all"]
    assert parse_folds("3") == ["3"]
    for wrong in ("x", "4-0", "-1", "0,1"):
        with pytest.raises(UsageError, match="give a number"):
            parse_folds(wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["900", "cnn", "7"], "fold 7 does not exist; this data set has folds 0-4 and all"),
        (["900", "cn", "0"], "no configuration 'cn'; did you mean 'cnn'"),
        (["901", "cnn", "0"], "no data set 901"),
        (["900", "cnn", "0", "--epochs", "0"], "--epochs 0: give a number above 0"),
        (["900", "cnn", "0", "--labelled", "99"], "--labelled 99: this fold trains on 4 patients"),
        (["900", "cnn", "0", "--unlabelled"], "--unlabelled: all patients of this fold are labelled"),
        (["900", "cnn", "0", "--device", "cudda"], "device cudda: cannot be used"),
        (["900", "cnn", "0", "--last-blocks", "2"], "--last-blocks: goes with --tune encoder+head:lora"),
        (
            ["900", "cnn", "0", "--tune", "encoder+head:full", "--from-head"],
            "--from-head: fold 0 trains on 4 patients; with fewer than 25 not enough can be held out",
        ),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(
    prepared: Prepared, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([*arguments, "--root", str(prepared.root)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not prepared.folders.results.exists()


def test_a_typo_in_a_flag_is_refused(prepared: Prepared, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["900", "cnn", "0", "--epoch", "3"])
    assert exit_.value.code == 2
    assert "unrecognized arguments: --epoch" in capsys.readouterr().err


def test_what_unlabelled_cases_bring_is_said(prepared: Prepared, capsys: pytest.CaptureFixture[str]) -> None:
    root = ["--root", str(prepared.root)]
    try:
        assert main(["900", "cnn", "0", "--labelled", "1", "--unlabelled", *root]) == 0
    finally:
        shutil.rmtree(prepared.folders.results, ignore_errors=True)
    said = capsys.readouterr().out
    found = re.search(
        r"mean Dice (\S+) without the unlabelled cases \(cnn_labelled1_seed0\), (\S+) with the unlab", said
    )
    assert found is not None
    assert ("the unlabelled cases did harm; predict with -c cnn_labelled1_seed0" in said) == (
        float(found[2]) < float(found[1])
    )


def test_what_tuning_brings_to_a_trained_head_is_said(prepared: Prepared, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--tune", "encoder+head:full", "--from-head", "--anyway", "--epochs", "1", "--labelled", "1"]
    try:
        assert main(["900", "linear", "0", *words, "--root", str(prepared.root)]) == 0
    finally:
        shutil.rmtree(prepared.folders.results, ignore_errors=True)
    said = capsys.readouterr().out
    found = re.search(r"mean Dice (\S+) without tuning \(linear_labelled1_seed0\), (\S+) with tuning", said)
    assert found is not None
    assert ("tuning did harm; predict with -c linear_labelled1_seed0" in said) == (float(found[2]) < float(found[1]))
