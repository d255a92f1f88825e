"""Looking after the cache from the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from autosam_net.commands.cache import main
from autosam_net.commands.encode import main as encode
from autosam_net.jsonio import write_json
from tests.support import TINY, Prepared, with_unet


@pytest.fixture
def root(prepared: Prepared, tmp_path: Path) -> Path:
    for name in ("raw", "preprocessed"):
        ignore = shutil.ignore_patterns("embeddings")
        shutil.copytree(prepared.root / name, tmp_path / name, ignore=ignore)
    assert encode(["-d", "900", "--views", "2", "--root", str(tmp_path)]) == 0
    return tmp_path


def test_an_encoder_of_a_configuration_is_cached_beside_the_plans(
    prepared: Prepared, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(root / "preprocessed" / prepared.dataset.name / "plan.json", with_unet(prepared.plan))
    assert encode(["-d", "900", "-c", "unet", "--root", str(root)]) == 0
    capsys.readouterr()
    assert main(["list", "--root", str(root)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "image_64_" in first and "6 cases  6 views and poses" in first
    assert f"{TINY}_64_" in second
    assert main(["verify", "--root", str(root)]) == 0


def test_list_verify_prune(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--root", str(root)]) == 0
    assert "6 cases  12 views and poses" in capsys.readouterr().out
    assert main(["verify", "-d", "900", "--root", str(root)]) == 0
    file = next((root / "preprocessed").rglob("view_01/embedding.npy"))
    file.write_bytes(file.read_bytes()[:-4])
    assert main(["verify", "--root", str(root)]) == 2
    assert "1 damaged entries" in capsys.readouterr().err
    assert main(["prune", "--damaged", "--root", str(root)]) == 0
    assert main(["verify", "--root", str(root)]) == 0
    assert main(["prune", "--root", str(root)]) == 0
    assert not list((root / "preprocessed").rglob("embedding.npy"))
