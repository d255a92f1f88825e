"""kill -9 at every change of the file system: the same command finishes, and its result is an undisturbed run's."""

from __future__ import annotations

import shutil
import signal

import pytest

from tests.faults.conftest import Stages
from tests.faults.stages import MAIN, SHARE, Fault, content, run

PARTS = 4  # moments of each stage, evenly spread, from the first change to the last


def moments(changes: int, most: int) -> list[int]:
    """Return up to `most` numbers from 1 to `changes`, the first and the last among them."""
    if changes <= most:
        return list(range(1, changes + 1))
    return sorted({1 + round(part * (changes - 1) / (most - 1)) for part in range(most)})


def kill_and_repeat(stages: Stages, stage: str, most: int) -> int:
    """Kill a stage at up to `most` of its changes, each in a folder of its own; return how often."""
    points = moments(len(stages.outcomes[stage].changes), most)
    for point in points:
        root = stages.again(stage, f"killed_{stage}_{point}")
        assert run(root, stage, Fault(point)).code == -signal.SIGKILL
        again = run(root, stage)
        was_done = "exists" in again.said  # the converter and the export write over nothing
        assert again.code == 0 or was_done, f"killed at {point}: {again.said}"
        found, expected = content(root), stages.after[stage]
        assert found.keys() == expected.keys(), f"killed at {point}: {found.keys() ^ expected.keys()}"
        changed = {name: (found[name][:500], expected[name][:500]) for name in found if found[name] != expected[name]}
        assert not changed, f"killed at {point}"
        shutil.rmtree(root)
    return len(points)


@pytest.mark.parametrize("stage", MAIN)
def test_the_same_command_finishes_after_a_kill(stages: Stages, stage: str) -> None:
    assert kill_and_repeat(stages, stage, PARTS) == PARTS


@pytest.mark.sweep
@pytest.mark.parametrize("stage", MAIN)
def test_the_same_command_finishes_after_a_kill_at_any_change(stages: Stages, stage: str) -> None:
    changes = len(stages.outcomes[stage].changes)
    print(stage, kill_and_repeat(stages, stage, max(PARTS, round(SHARE * changes))), "of", changes)


@pytest.mark.parametrize("stage", MAIN)
def test_nothing_is_written_in_place(stages: Stages, stage: str) -> None:
    opened = [path for event, path in stages.outcomes[stage].changes if event == "open"]
    assert opened
    assert all(".writing-" in path or path.endswith(".lock") for path in opened)
