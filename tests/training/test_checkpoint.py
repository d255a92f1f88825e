"""The state of a training on disk."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from autosam_net.errors import ModelError
from autosam_net.training import checkpoint
from autosam_net.training.checkpoint import (
    TrainingState,
    load_tensors,
    restore_checkpoint,
    save_checkpoint,
    save_tensors,
)


def state(steps: int = 0) -> TrainingState:
    torch.manual_seed(0)
    head = nn.Linear(3, 2)
    new = TrainingState(head, torch.optim.AdamW(head.parameters()), 0, 7, [], 0.0, {})
    for _ in range(steps):
        new.optimizer.zero_grad()
        head(torch.rand(4, 3)).sum().backward()
        new.optimizer.step()
        new.iteration += 1
    return new


def test_what_is_restored_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    original = state(steps=3)
    original.log.append({"epoch": 1.0})
    original.sums["loss"] = 0.1
    save_checkpoint(tmp_path / "a.safetensors", original, "same")
    expected = torch.rand(2)
    restored = state()
    restore_checkpoint(tmp_path / "a.safetensors", restored, "same")
    assert torch.equal(torch.rand(2), expected)
    assert (restored.iteration, restored.log, restored.sums) == (3, original.log, original.sums)
    save_checkpoint(tmp_path / "b.safetensors", original, "same")
    torch.set_rng_state(load_tensors(tmp_path / "b.safetensors")[0]["generator"])
    save_checkpoint(tmp_path / "c.safetensors", restored, "same")
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "c.safetensors").read_bytes()


def test_other_settings_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.safetensors", state(), "these")
    with pytest.raises(ModelError, match=r"a.safetensors: this training began with another plan.* --overwrite"):
        restore_checkpoint(tmp_path / "a.safetensors", state(), "others")


def test_equal_content_makes_equal_bytes(tmp_path: Path) -> None:
    metadata = {name: name for name in "abcdefgh"}
    contents = set()
    for _ in range(5):
        save_tensors(tmp_path / "a.safetensors", {"x": torch.ones(2), "y": torch.zeros(3)}, metadata)
        contents.add((tmp_path / "a.safetensors").read_bytes())
    assert len(contents) == 1
    assert load_tensors(tmp_path / "a.safetensors")[1] == metadata


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(OSError, match="No space left on device") as caught:
        save_tensors(tmp_path / "a.safetensors", {"x": torch.ones(2)}, {})
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a.safetensors"))


def test_a_file_of_an_earlier_version_is_used_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_file({"x": torch.ones(2)}, tmp_path / "old.safetensors", {"autosam_net": '{"version": 1}'})
    assert load_tensors(tmp_path / "old.safetensors")[1] == {"version": 1}
    assert "old.safetensors: of an earlier version, without a checksum" in caplog.text


def test_no_bit_of_a_file_can_take_its_checksum_away(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_tensors(file, {"x": torch.ones(2)}, {"version": 1})
    sound = file.read_bytes()
    for place in range(8 * len(sound)):
        changed = bytearray(sound)
        changed[place // 8] ^= 1 << place % 8
        file.write_bytes(changed)
        with suppress(ModelError):  # a space of the padding, which says nothing
            tensors, metadata = load_tensors(file)
            assert (tensors["x"].tolist(), metadata) == ([1.0, 1.0], {"version": 1})


def test_what_is_no_file_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no such file\. Train this fold first"):
        load_tensors(tmp_path / "missing.safetensors")
    save_tensors(tmp_path / "cut.safetensors", {"x": torch.ones(2)}, {})
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"cut.safetensors: damaged .* --overwrite"):
        load_tensors(tmp_path / "cut.safetensors")
    save_file({"x": torch.ones(2)}, tmp_path / "foreign.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="not written by this version of autosam_net"):
        load_tensors(tmp_path / "foreign.safetensors")
