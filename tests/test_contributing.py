"""The examples of CONTRIBUTING.md work as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = re.findall(
    r"^```python\n(.*?)^```$",
    (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)
USES = {
    "HEADS": """
import torch
from autosam_net.heads.head import HeadShape, build_head

head = build_head("pointwise", HeadShape(outputs=3, channels=8, stride=4, input_size=32), {}, {})
assert head(torch.zeros(2, 8, 8, 8)).shape == (2, 3, 32, 32)
""",
    "READERS": """
import numpy as np
from autosam_net.imageio import read_image

np.save(folder / "image.npy", np.ones((2, 3, 4)))
assert read_image(folder / "image.npy").array.shape == (1, 2, 3, 4)
""",
}


@pytest.mark.parametrize("registry", USES)
def test_an_example_is_a_plugin(registry: str, tmp_path: Path) -> None:
    (example,) = [example for example in EXAMPLES if f"{registry}.register" in example]
    (tmp_path / "mine.py").write_text(example, encoding="utf-8")
    program = (
        "import pathlib, sys\n"
        "from autosam_net.plugins import load_plugins\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        f"load_plugins([folder / 'mine.py'])\n{USES[registry]}"
    )  # in a process of its own, so that no other test meets the example in the registry
    answer = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
