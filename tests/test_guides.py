"""The guides' commands and programs do what the guides say: they are run as they stand there, on small data."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from autosam_net.encoders.catalog import ENCODERS
from autosam_net.heads.head import HEADS
from tests.test_help import SCRIPTS
from tests.test_readme import ROOT, blocks

GUIDES = ROOT / "docs" / "guides"
LEFT_OUT = {"pip", "autosam_doctor"}  # tested elsewhere, on the real environment
USES = {
    "add_a_head": """
import torch
from autosam_net.heads.head import HeadShape, build_head

head = build_head("pointwise", HeadShape(outputs=3, channels=8, stride=4, input_size=32), {}, {})
assert head(torch.zeros(2, 8, 8, 8)).shape == (2, 3, 32, 32)
""",
    "add_a_reader": """
import numpy as np
from autosam_net.imageio import read_image

np.save(folder / "image.npy", np.ones((2, 3, 4)))
assert read_image(folder / "image.npy").array.shape == (1, 2, 3, 4)
""",
    "add_an_encoder": """
import numpy as np
import torch
from autosam_net import embed_image, load_encoder
from autosam_net.encoders.catalog import ENCODERS

parts = {"0.weight": (64, 3, 8, 8), "0.bias": (64,), "2.weight": (128, 64, 1, 1), "2.bias": (128,)}
weights = {f"image_encoder.{name}": torch.zeros(shape) for name, shape in parts.items()}
torch.save(weights, folder / "patches.pth")
assert abs((folder / "patches.pth").stat().st_size - ENCODERS.get("patches").weights.size) < 10_000
encoder = load_encoder("patches", weights=folder / "patches.pth")
assert embed_image(np.eye(40), encoder, (1.0, 1.0)).shape == (1, 128, 32, 32)
""",
}


@pytest.mark.parametrize("guide", USES)
def test_an_example_is_a_plugin(guide: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(blocks(GUIDES / f"{guide}.md", "python")[0], encoding="utf-8")
    program = (
        "import pathlib, sys\n"
        "from autosam_net.plugins import load_plugins\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        f"load_plugins([folder / 'mine.py'])\n{USES[guide]}"
    )  # in a process of its own, so that no other test meets the example in the registry
    answer = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


@pytest.fixture
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    head = HEADS.get("cnn")
    monkeypatch.setattr(head, "recipe", replace(head.recipe, epochs=1, iterations=2))


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a line of a shell: a command of ours, or an export."""
    first, *words = shlex.split(os.path.expandvars(line), comments=True)
    if first == "export":
        for name, _, value in (word.partition("=") for word in words):
            monkeypatch.setenv(name, value)
    elif first not in LEFT_OUT:
        assert import_module(SCRIPTS[first].partition(":")[0]).main(words) == 0, line


@pytest.mark.usefixtures("short_training")
def test_a_first_model(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PWD", str(place))
    guide = GUIDES / "first_model.md"
    for block in blocks(guide, "bash"):
        for line in filter(None, block.splitlines()):
            run(line, monkeypatch)
    (program,) = blocks(guide, "python")
    exec(compile(program, guide.name, "exec"), {})
    text = guide.read_text(encoding="utf-8")
    named = re.findall(r"`(work/(?:preprocessed|results)/Dataset900_Example/[\w.]+)`", text)
    assert len(named) == 3 and all((place / path).exists() for path in named)
    assert len(list((place / "work" / "predictions").glob("*.nii.gz"))) == 2
    assert "'RV':" in capsys.readouterr().out


def test_the_embeddings_of_an_image(capsys: pytest.CaptureFixture[str]) -> None:
    guide = GUIDES / "add_an_encoder.md"
    exec(compile(blocks(guide, "python")[1], guide.name, "exec"), {})
    assert capsys.readouterr().out == "(3, 256, 64, 64)\n"


def test_weights_to_carry_over_are_those_of_the_catalog() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \|$", (GUIDES / "offline.md").read_text(encoding="utf-8"), re.MULTILINE)
    sources = {name: ENCODERS.get(name).weights for name in ENCODERS}
    downloaded = {name: source.url for name, source in sources.items() if source is not None and source.url}
    assert dict(rows) == downloaded
    assert all(address.endswith(f"/{sources[name].file}") for name, address in rows)
