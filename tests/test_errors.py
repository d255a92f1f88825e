"""The tree of errors."""

from __future__ import annotations

import pickle

import pytest

from autosam_net.errors import AutosamError, PlanError


@pytest.mark.parametrize("name", ["a\nb", "\x00", "\r", "\x1b[31m", "\ud800", "\u2028"])
def test_an_error_is_one_line_whatever_a_file_is_called(name: str) -> None:
    error = PlanError(f"fold 1 names case {name}, which is – é – not in the data set")
    assert str(error).isprintable() and len(str(error).splitlines()) == 1
    assert "– é –" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 (our own, as from a worker)
    assert str(AutosamError(str(error))) == str(error)
