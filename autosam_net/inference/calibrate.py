"""Learn from a model's validation cases which Dice to expect of its predictions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autosam_net.evaluation.case_table import (
    CASES_FILE,
    CONFIDENCE,
    confidence_rows,
    confidences_in,
    number,
    read_rows,
    replace_columns,
)
from autosam_net.evaluation.expected_dice import (
    EXPECTED_DICE_FILE,
    ExpectedDice,
    ValidationCase,
    is_bad,
    learn,
    leave_patients_out,
    mean_of,
)
from autosam_net.jsonio import sealed, write_json
from autosam_net.training.run import ModelFolder


def has_confidences(fold: Path) -> bool:
    """Return whether a fold was validated, and its cases.csv has the confidences of its cases."""
    return bool(confidences_in(read_rows(_table(fold))))


def calibrate(model: ModelFolder, patients: Mapping[str, str]) -> ExpectedDice | None:
    """Learn from the validation cases of all folds; write expected_dice.json, and what is expected into each cases.csv.

    In cases.csv each patient's cases are judged by what was learnt on the other patients.

    Args:
        patients: case -> patient.

    Returns:
        What was learnt; None where the validation cases are of too few patients.
    """
    folders = [model.fold(fold) for fold in model.trained_folds()]
    cases = {folder: _validation_cases(folder, patients) for folder in folders}
    everything = [case for of_fold in cases.values() for case in of_fold]
    learnt = learn(everything)
    if learnt is None:
        (model.path / EXPECTED_DICE_FILE).unlink(missing_ok=True)
        return None
    expected = leave_patients_out(everything)
    for folder, of_fold in cases.items():
        rows: dict[tuple[str, str], Mapping[str, object]] = {}
        for case in of_fold:
            bad = is_bad(mean_of(expected[case.name].values()), learnt.threshold)
            rows |= confidence_rows(case.name.rpartition("/")[2], case.confidences, expected[case.name], bad)
        replace_columns(_table(folder), CONFIDENCE, rows)
    write_json(model.path / EXPECTED_DICE_FILE, sealed(learnt))
    return learnt


def _validation_cases(fold: Path, patients: Mapping[str, str]) -> list[ValidationCase]:
    """Return the cases of a fold's cases.csv, named with the fold: splits of one's own may hold a case out twice."""
    rows = read_rows(_table(fold))
    return [
        ValidationCase(
            name=f"{fold.name}/{case}",
            patient=patients.get(case, case),
            confidences=confidences,
            dice={
                name: number(rows[case, name].get("Dice", ""), f"{CASES_FILE}: {case}", "Dice") for name in confidences
            },
        )
        for case, confidences in confidences_in(rows).items()
    ]


def _table(fold: Path) -> Path:
    return fold / "validation" / CASES_FILE
