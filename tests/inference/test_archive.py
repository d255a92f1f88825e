"""Zips of plain files; what is refused is tested with whole models in `tests/commands/test_install_model.py`."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from autosam_net.inference.archive import SAFE_PATH, unpack_zip, write_zip
from tests.support import snapshot


def test_what_goes_in_comes_out_and_equal_files_make_equal_bytes(tmp_path: Path) -> None:
    for name, order in (("one", ("b/c.txt", "a.txt")), ("two", ("a.txt", "b/c.txt"))):
        for index, file in enumerate(order):
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.encode() * 1000)
            os.utime(path, (index, index))
            path.chmod(0o600 + index)
        write_zip(tmp_path / f"{name}.zip", tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    unpack_zip(tmp_path / "one.zip", tmp_path / "out")
    contents = [
        {key: entry and entry[1] for key, entry in snapshot(tmp_path / name).items()} for name in ("one", "out")
    ]
    assert contents[0] == contents[1]


@given(st.text(alphabet="ab./\\: ~-_+\n\0", max_size=12))
def test_a_safe_path_stays_below_its_folder(name: str) -> None:
    if SAFE_PATH.fullmatch(name):
        below = os.path.normpath(os.path.join("/folder", name))
        assert below == f"/folder/{name}" and not set(name) & set("\\:~ \n\0")
