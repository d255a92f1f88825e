from __future__ import annotations

from pathlib import Path

import pytest

from autosam_net.paths import Folders, find_folders, folder_origins, root_flag


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner in ("autosam", "nnUNet"):
        for name in ("raw", "preprocessed", "results"):
            monkeypatch.delenv(f"{owner}_{name}", raising=False)


def test_a_root_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("autosam_raw", "/elsewhere")
    assert find_folders("/r") == Folders(Path("/r/raw"), Path("/r/preprocessed"), Path("/r/results"))


def test_home_is_the_last_resort() -> None:
    assert find_folders().raw == Path.home() / "autosam" / "raw"


def test_each_folder_is_looked_up_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_raw", "/n/raw")
    monkeypatch.setenv("nnUNet_preprocessed", "/n/preprocessed")
    monkeypatch.setenv("nnUNet_results", "/n/results")
    monkeypatch.setenv("autosam_results", "/own")
    folders = find_folders()
    assert folders.raw == Path("/n/raw")
    assert folders.preprocessed == Path("/n/preprocessed/autosam_net")  # beside nnU-Net's files, never among them
    assert folders.results == Path("/own")


@pytest.mark.parametrize("value", ["", "  ", '""'])
def test_an_empty_variable_counts_as_none(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("autosam_raw", value)
    assert find_folders().raw == Path.home() / "autosam" / "raw"


def test_quotes_and_the_tilde_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("autosam_raw", '"~/data"')
    assert find_folders().raw == Path.home() / "data"


def test_variables_are_read_at_the_time_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    before = find_folders()
    monkeypatch.setenv("autosam_raw", "/later")
    assert find_folders().raw != before.raw


def test_the_origin_of_each_folder_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("autosam_raw", "/a")
    monkeypatch.setenv("nnUNet_raw", "/b")
    monkeypatch.setenv("nnUNet_results", "/c")
    expected = {"raw": "autosam_raw", "preprocessed": "the default", "results": "nnUNet_results"}
    assert folder_origins() == expected
    assert set(folder_origins("/d").values()) == {"--root"}


def test_a_command_gets_a_root_only_where_it_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert root_flag(find_folders("/a b")) == " --root '/a b'"
    monkeypatch.setenv("autosam_raw", "/a/raw")
    monkeypatch.setenv("autosam_preprocessed", "/a/preprocessed")
    monkeypatch.setenv("autosam_results", "/a/results")
    assert root_flag(find_folders()) == ""
