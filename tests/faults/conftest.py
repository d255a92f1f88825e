"""A small data set before and after every stage, each carried out undisturbed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dataset_conversion.example import write_example
from tests.faults.stages import MAIN, NAME, Outcome, content, run


@dataclass(frozen=True)
class Stages:
    """The undisturbed runs.

    Attributes:
        before: stage -> folder with what the stages before it have made.
        after: stage -> content of that folder when it is done.
    """

    place: Path
    before: dict[str, Path]
    after: dict[str, dict[str, bytes]]
    outcomes: dict[str, Outcome]

    def again(self, stage: str, name: str) -> Path:
        """Return a new folder in which the stage can be carried out."""
        return Path(shutil.copytree(self.before[stage], self.place / name))


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Iterator[Stages]:
    place = tmp_path_factory.mktemp("stages")
    shutil.copy(tiny_weights, place / "tiny.pth")
    root = place / "root"
    _write_source(root)
    before, after, outcomes = {}, {}, {}
    for stage in MAIN:
        if stage == "predict":
            _write_inputs(root)
        before[stage] = Path(shutil.copytree(root, place / f"before_{stage}"))
        outcomes[stage] = run(root, stage)
        assert outcomes[stage].code == 0, outcomes[stage].said
        after[stage] = content(root)
    yield Stages(place, before, after, outcomes)
    shutil.rmtree(place)


def _write_source(root: Path) -> None:
    """Write the phantom as ACDC's download lies: six patients with one frame each."""
    raw = write_example(root / "phantom", patients=6, frames=1, shape=(3, 64, 64), workers=1)
    for label in sorted((raw / "labelsTr").iterdir()):
        name = label.name.removesuffix(".nii.gz")
        folder = root / "source" / "training" / name.partition("_")[0]
        folder.mkdir(parents=True)
        shutil.move(raw / "imagesTr" / f"{name}_0000.nii.gz", folder / label.name)
        shutil.move(label, folder / f"{name}_gt.nii.gz")
    shutil.rmtree(root / "phantom")


def _write_inputs(root: Path) -> None:
    (root / "in").mkdir()
    for image in sorted((root / "raw" / NAME / "imagesTr").iterdir())[:2]:
        shutil.copy(image, root / "in")
