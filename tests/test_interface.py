"""`import autosam_net` costs nothing, and everything it names is there and documented; types: interface_types.py."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import autosam_net
from autosam_net.data.dataset import training_cases
from tests.support import Prepared
from tests.test_help import SLOW

ROOT = Path(__file__).resolve().parents[1]
STUB = (ROOT / "autosam_net" / "__init__.pyi").read_text(encoding="utf-8")
LISTED = re.findall(r"^from \.([\w.]+) import (\w+) as \2$", STUB, re.MULTILINE)


def python(program: str) -> str:
    """Return what a program prints in a process of its own."""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_the_import_is_quick() -> None:
    modules = json.loads(python("import autosam_net, json, sys; print(json.dumps(sorted(sys.modules)))"))
    assert not {*SLOW, "numpy"} & set(modules)


def test_every_name_comes_from_its_home() -> None:
    names = {name: f"autosam_net.{home}" for home, name in LISTED}
    assert len(names) == len(STUB.splitlines())
    assert set(names) == set(autosam_net.__all__) <= set(dir(autosam_net))
    for name, home in names.items():
        assert getattr(autosam_net, name).__module__ == home, name


def test_every_name_stands_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    shown = re.findall(r"^::: autosam_net\.([\w.]+)$", page, re.MULTILINE)
    assert {f"{home}.{name}" for home, name in LISTED} - {"errors.AutosamError"} == set(shown) - {"errors"}


def test_a_path_may_be_a_text(prepared: Prepared) -> None:
    case = training_cases(prepared.dataset)[0]
    assert case.label is not None
    image, label = autosam_net.read_image(str(case.images[0])), autosam_net.read_label(str(case.label))
    assert image.shape == label.shape
    folder = prepared.folders.preprocessed / prepared.dataset.name
    assert autosam_net.load_plan(str(folder / "plan.json")) == prepared.plan
    labels, references = prepared.dataset.labels, str(case.label.parent)
    summary = autosam_net.evaluate_folder(references, references, labels, prepared.dataset.file_ending, workers=1)
    assert summary.foreground_mean["Dice"] == 1
