from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autosam_net.data.fingerprint import Fingerprint
from autosam_net.data.plan import Plan, load_plan
from autosam_net.errors import PlanError
from autosam_net.jsonio import write_json
from planning.make_plan import make_plan
from planning.settle_plan import PlanRequest, settle_plan
from tests.planning.figures import case, dataset, fingerprint, probe


class Settling:
    """Settles plans in one folder and counts how often one was made."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, 0

    def __call__(self, figures: Fingerprint | None = None, **request: object) -> Plan:
        figures = figures or fingerprint()
        asked = PlanRequest(**request)
        return settle_plan(dataset(), figures, None, self.folder, asked, lambda: self._make(figures, asked))

    def _make(self, figures: Fingerprint, asked: PlanRequest) -> Plan:
        self.made += 1
        plan = make_plan(dataset(), figures, probe(), asked.encoder, asked.weights)
        bare = {name: replace(entry, settings={}) for name, entry in plan.configurations.items()}
        return replace(plan, configurations=bare)

    def edit(self, **changes: object) -> None:
        write_json(self.folder / "plan.json", replace(load_plan(self.folder / "plan.json"), **changes))


@pytest.fixture
def settle(tmp_path: Path) -> Settling:
    return Settling(tmp_path)


def test_a_plan_is_made_once(settle: Settling) -> None:
    plan = settle()
    files = {path: path.stat().st_mtime_ns for path in settle.folder.iterdir()}
    assert settle() == plan == load_plan(settle.folder / "plan.json")
    assert {path: path.stat().st_mtime_ns for path in settle.folder.iterdir()} == files
    assert settle.made == 1


def test_new_data_give_a_new_plan(settle: Settling) -> None:
    settle()
    settle(fingerprint(*(case(f"{index}", shape=(10, 60, 60)) for index in range(5))))
    assert settle.made == 2


def test_an_edited_plan_is_kept_and_said_so(settle: Settling, caplog: pytest.LogCaptureFixture) -> None:
    settle()
    settle.edit(folds=3)
    with caplog.at_level("INFO"):
        assert settle().folds == 3
    assert "edited by hand, so it is kept (--replan makes it anew)" in caplog.text
    other = fingerprint(*(case(f"{index}", shape=(10, 60, 60)) for index in range(5)))
    with caplog.at_level("INFO"):
        assert settle(other).folds == 3
    assert "the data set has changed since it was made" in caplog.text
    assert settle.made == 1


def test_an_edited_plan_is_validated(settle: Settling) -> None:
    settle()
    settle.edit(folds=0)
    with pytest.raises(PlanError, match="folds: found 0"):
        settle()


def test_a_plan_without_origin_counts_as_edited(settle: Settling) -> None:
    settle()
    (settle.folder / "plan_origin.json").unlink()
    settle()
    assert settle.made == 1


def test_replan_throws_an_edit_away(settle: Settling) -> None:
    plan = settle()
    settle.edit(folds=3)
    assert settle(replan=True) == plan
    assert settle() == plan
    assert settle.made == 2


def test_another_encoder_is_planned_anew_but_not_over_an_edit(settle: Settling) -> None:
    settle()
    assert settle(encoder="mobile_sam").encoding.encoder == "mobile_sam"
    assert settle(encoder="mobile_sam").encoding.encoder == "mobile_sam"
    assert settle.made == 2
    settle.edit(folds=3)
    with pytest.raises(PlanError, match=r"edited by hand, and it names the encoder mobile_sam, not vit_b.*--replan"):
        settle(encoder="vit_b")


def test_other_weights_are_planned_anew(settle: Settling, tmp_path: Path) -> None:
    settle()
    weights = tmp_path / "mine.pth"
    weights.touch()
    assert settle(weights=weights).encoding.weights_file == weights
    settle(weights=weights)
    assert settle.made == 2


def test_a_damaged_plan_is_refused_by_name(settle: Settling) -> None:
    settle()
    (settle.folder / "plan.json").write_text("{")
    with pytest.raises(PlanError, match=r"plan.json: not valid JSON"):
        settle()
