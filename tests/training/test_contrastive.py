"""The loss of pairs, and which slices they are of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from autosam_net.data.splits import load_splits
from autosam_net.preprocessing.preprocess import cases_folder
from autosam_net.training.contrastive import draw_pairs, pair_loss
from autosam_net.training.slices import UnlabelledSlices
from tests.support import Prepared


def test_pairs_that_resemble_each_other_cost_nothing() -> None:
    directions = torch.eye(4)
    loss, found = pair_loss(torch.cat([directions, 3 * directions]))
    assert loss == pytest.approx(0.0, abs=1e-3) and found == 1.0
    loss, found = pair_loss(torch.cat([directions, directions.roll(1, 0)]))
    assert loss > 5.0 and found == 0.0


def test_without_any_knowledge_all_others_are_alike() -> None:
    assert pair_loss(torch.ones(8, 5))[0] == pytest.approx(np.log(7), abs=1e-4)


@pytest.fixture
def slices(prepared: Prepared) -> UnlabelledSlices:
    root = cases_folder(prepared.dataset, prepared.folders)
    split = load_splits(prepared.folders.preprocessed / prepared.dataset.name / "splits_final.json")[0]
    folders: dict[Path, str] = {root / case: case.split("_")[0] for case in split.train}
    return UnlabelledSlices(folders, prepared.plan.encoding)


def test_pairs_are_of_different_patients_or_at_least_slices(
    slices: UnlabelledSlices, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[int]] = []

    def remember(rng: np.random.Generator, numbers: list[int]) -> torch.Tensor:
        drawn.append(list(numbers))
        return torch.zeros(len(numbers), 3, 64, 64)

    monkeypatch.setattr(slices, "_views", remember)
    patients = len(slices.of_patient)
    patient_of = {number: patient for patient, numbers in slices.of_patient.items() for number in numbers}
    for size in (patients, len(slices.inputs)):
        assert draw_pairs(slices, 0, size, 7).shape == (2 * size, 3, 48, 48)
        assert drawn[-1][:size] == drawn[-1][size:], "second views are of the same slices, in the same order"
        assert len(set(drawn[-1])) == size
    assert len({patient_of[number] for number in drawn[0]}) == patients


def test_a_draw_depends_on_its_number_alone(slices: UnlabelledSlices) -> None:
    first = draw_pairs(slices, 0, 2, 3)
    assert torch.equal(first, draw_pairs(slices, 0, 2, 3))
    assert not torch.equal(first, draw_pairs(slices, 0, 2, 4))
    assert not torch.equal(first[:2], first[2:])
    assert first.min() >= 0 and first.max() <= 1
