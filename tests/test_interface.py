"""`import autosam_net` costs nothing, and everything it names is there, is typed and is documented."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import autosam_net
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


def test_type_checkers_see_the_types(tmp_path: Path) -> None:
    program = (
        "from mypy import api\n"
        "text, errors, code = api.run(['--strict', '--config-file=', '--follow-imports=silent',\n"
        f"    '--cache-dir={tmp_path}', '-c', 'from autosam_net import find_folders; reveal_type(find_folders)'])\n"
        "print(text, errors)\n"
    )
    assert re.search(r"Revealed type is .*-> autosam_net\.paths\.Folders", python(program))
