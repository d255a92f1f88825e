"""The peak memory of each stage, command by command, beside what the plan predicts."""

from __future__ import annotations

import sys
from pathlib import Path

from autosam_net.data.plan import StepEstimate, load_plan
from autosam_net.memory import resident_mib
from autosam_net.paths import find_folders
from benchmarks.measuring import Row, Setting
from benchmarks.peer import run_command, write_part

WATCHED = (  # in a small process, since the peak of a new one is at least that of the process that starts it
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


def measure(setting: Setting) -> list[Row]:
    """Return a row a stage, of some cases, from the raw files to the figures."""
    cases = setting.spread_cases()
    part = write_part(setting.dataset, cases, setting.scratch)
    root, predictions = ("--root", str(setting.scratch)), str(setting.scratch / "predictions")
    here, image = (*root, "--device", "cpu"), str(cases[0].images[0])
    stages = {
        "plan": ("autosam_plan_and_preprocess", "-d", part.name, "--plan-only", *here),
        "preprocess": ("autosam_plan_and_preprocess", "-d", part.name, *root),
        "train:cnn": ("autosam_train", part.name, "cnn", "0", "--labelled", "1", "--epochs", "1", *here),
        "predict": ("autosam_predict", "-i", image, "-o", predictions, *here),
        "evaluate": ("autosam_evaluate", "-r", str(part.folder / "labelsTr"), "-p", predictions, "--chill"),
    }
    peaks = {stage: peak_memory(*command) for stage, command in stages.items()}
    predicted = load_plan(find_folders(setting.scratch).preprocessed / part.name / "plan.json").estimates
    return [
        Row(f"peak memory of {stage}", ratio=peak / 1024, to="GiB", goal=_in_words(predicted.get(stage)))
        for stage, peak in peaks.items()
    ]


def peak_memory(name: str, *arguments: str) -> float:
    """Run a console script of the environment's; return the peak memory of the largest of its processes, MiB.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
    """
    printed = run_command("python", "-c", WATCHED, str(Path(sys.executable).parent / name), *arguments)
    return resident_mib(int(printed.splitlines()[-1]))


def _in_words(estimate: StepEstimate | None) -> str:
    return "" if estimate is None else f"<= {estimate.memory_mib / 1024:.3g}, the plan's"
