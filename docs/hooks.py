"""What the site has beside the pages in docs/: the help of every command, CONTRIBUTING and CHANGELOG."""

from __future__ import annotations

import configparser
import contextlib
import importlib
import io
import os
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PLACE = "<!-- the help of every command -->"


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside docs/; their links into docs/ become links beside them."""
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, name.lower(), content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the help of every command where the page asks for it."""
    return markdown.replace(PLACE, _all_help()) if PLACE in markdown else markdown


def _all_help() -> str:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    scripts = setup["options.entry_points"]["console_scripts"].strip().splitlines()
    pairs = (line.replace(" ", "").split("=") for line in scripts)
    return "\n".join(f"## {name}\n\n```text\n{_help(name, target)}```\n" for name, target in pairs)


def _help(name: str, target: str) -> str:
    """Return what the command prints for --help in a window of 100 columns."""
    main = importlib.import_module(target.partition(":")[0]).main
    text = io.StringIO()
    os.environ["COLUMNS"] = "100"
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main(["--help"])
    return text.getvalue().replace(text.getvalue().split()[1], name)
