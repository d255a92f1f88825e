"""Every console script answers `--help`, and answers before anything slow is imported."""

from __future__ import annotations

import configparser
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SLOW = (
    "torch",
    "torchvision",
    "timm",
    "monai",
    "pandas",
    "SimpleITK",
    "scipy",
    "skimage",
    "matplotlib",
    "joblib",
    "rich",
    "jinja2",
    "pydicom",
    "highdicom",
    "tifffile",
)
PROGRAM = """
import contextlib, importlib, io, json, sys
main = importlib.import_module(sys.argv[1]).main
text = io.StringIO()
with contextlib.redirect_stdout(text):
    try:
        main(["--help"])
    except SystemExit as end:
        code = end.code
print(json.dumps({"code": code, "text": text.getvalue(), "modules": sorted(sys.modules)}))
"""


def console_scripts() -> dict[str, str]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options.entry_points"]["console_scripts"].strip().splitlines()
    return {name.strip(): target.strip() for name, target in (line.split("=") for line in lines)}


SCRIPTS = console_scripts()


@pytest.mark.parametrize("script", [*SCRIPTS, "autosam_net.commands.demo"])
def test_help_is_quick_and_complete(script: str) -> None:
    module, _, function = SCRIPTS.get(script, f"{script}:main").partition(":")
    assert function == "main"
    answer = subprocess.run([sys.executable, "-c", PROGRAM, module], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    result = json.loads(answer.stdout)
    assert result["code"] == 0
    assert "usage:" in result["text"]
    assert "--version" in result["text"]
    assert not set(SLOW) & set(result["modules"])
