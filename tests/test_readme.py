"""The commands in README and docs are commands that exist, and what they say of files and messages holds."""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from autosam_net.data.configuration import Configuration, Tuning
from autosam_net.data.encoding import Encoding, RgbSource
from autosam_net.data.plan import Normalization, Plan, Preprocessing, StepEstimate
from autosam_net.data.prompts import PromptOptions
from autosam_net.imageio import READERS
from tests.test_help import SCRIPTS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
OTHERS = {"cd", "export", "pip", "sbatch", "dask", "torchrun", "python"}  # of the shell, of SLURM, of other packages


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def command_lines() -> list[tuple[str, ...]]:
    """Return the words of every line in the bash blocks, comments left out."""
    text = "\n".join(block for page in PAGES for block in blocks(page, "bash")).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [tuple(line) for line in lines if line]


LINES = command_lines()


def parse(script: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Return what the script's own parser makes of the words; nothing is run."""
    parsed: list[argparse.Namespace] = []

    def only_parse(_: object, parser: argparse.ArgumentParser, argv: list[str] | None) -> int:
        parsed.append(parser.parse_args(argv))
        return 0

    module = import_module(SCRIPTS[script].partition(":")[0])
    monkeypatch.setattr(module, "run", only_parse)
    module.main(words)
    return parsed[0]


@pytest.mark.parametrize("line", [line for line in LINES if line[0] in SCRIPTS], ids=" ".join)
def test_the_flags_of_a_command_exist(line: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    parse(line[0], list(line[1:]), monkeypatch)


def test_a_mistyped_flag_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        parse("autosam_train", ["27", "cnn", "0", "--label", "1"], monkeypatch)


def test_every_script_is_shown_and_every_line_is_known() -> None:
    used = {line[0] for line in LINES}
    assert used <= {*SCRIPTS, *OTHERS, "make"}
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert {script for script in SCRIPTS if script in text} == set(SCRIPTS)


@pytest.mark.parametrize("line", [line for line in LINES if line[0] == "make"], ids=" ".join)
def test_targets_and_variables_of_make_exist(line: tuple[str, ...]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in line[1:]:
        name, _, value = word.partition("=")
        assert re.search(rf"^{name} \?=" if value else rf"^{name}:", makefile, re.MULTILINE), word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_width(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (page.parent / target).is_file(), target
    assert not [line for line in text.splitlines() if len(line) > 120]


def test_every_key_of_the_plan_is_explained() -> None:
    text = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
    kinds = (Plan, Preprocessing, Normalization, Encoding, RgbSource)
    for kind in (*kinds, Configuration, Tuning, PromptOptions, StepEstimate):
        for field in dataclasses.fields(kind):
            assert f"`{field.name}`" in text, f"{kind.__name__}.{field.name}"


def test_every_file_ending_is_listed() -> None:
    text = (ROOT / "docs" / "data_format.md").read_text(encoding="utf-8")
    assert [ending for ending in READERS if f"`{ending}`" not in text] == []


def test_the_messages_explained_are_messages_of_the_program() -> None:
    files = [path for name in ("autosam_net", "planning") for path in (ROOT / name).rglob("*.py")]
    source = "\n".join(path.read_text(encoding="utf-8") for path in files)
    source = re.sub(r'"\n\s*f?"', "", source)  # a literal broken over lines
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE)
    parts = [part for row in rows for quote in re.findall("`([^`]+)`", row) for part in quote.split("...")]
    assert len(parts) > 40
    assert [part for part in parts if part.strip(" ();,:") and part.strip() not in source] == []
