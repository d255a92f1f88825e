from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosam_net.errors import PlanError
from autosam_net.jsonio import canonical, dumps, from_json, load, read_json, to_json, write_json


@dataclass(frozen=True)
class Inner:
    size: tuple[int, int]
    rate: float


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    flags: tuple[bool, ...]
    table: Mapping[str, float | None]
    notes: list[str]
    mode: Literal["slow", "fast"] = "slow"
    extra: int | None = None
    values: dict[str, int] = field(default_factory=dict)


finite = st.floats(allow_nan=False, allow_infinity=False)
outers = st.builds(
    Outer,
    name=st.text(),
    inner=st.builds(Inner, size=st.tuples(st.integers(), st.integers()), rate=finite),
    flags=st.lists(st.booleans()).map(tuple),
    table=st.dictionaries(st.text(), st.none() | finite),
    notes=st.lists(st.text()),
    mode=st.sampled_from(["slow", "fast"]),
    extra=st.none() | st.integers(),
    values=st.dictionaries(st.text(), st.integers()),
)
GOOD: dict[str, Any] = {"name": "a", "inner": {"size": [1, 2], "rate": 1}, "flags": [], "table": {}, "notes": []}


@given(outers)
def test_what_is_written_is_read_again(value: Outer) -> None:
    assert from_json(Outer, json.loads(dumps(value)), "x") == value
    assert from_json(Outer, json.loads(canonical(value)), "x") == value


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_canonical_text_does_not_depend_on_order(table: dict[str, int]) -> None:
    assert canonical(table) == canonical(dict(reversed(table.items())))


def test_a_file_and_back(tmp_path: Path) -> None:
    value = Outer("ä", Inner((1, 2), 0.5), (True,), {"x": None}, ["n"])
    write_json(tmp_path / "deep" / "a.json", value)
    assert load(Outer, tmp_path / "deep" / "a.json") == value


def test_a_whole_number_is_a_number() -> None:
    rate = from_json(Outer, GOOD, "x").inner.rate
    assert (type(rate), rate) == (float, 1.0)


def test_numpy_and_paths() -> None:
    written = to_json({1: np.float32(0.5), "b": np.arange(3), "c": Path("x/y"), "d": np.bool_(True)})
    assert written == {"1": 0.5, "b": [0, 1, 2], "c": str(Path("x/y")), "d": True}
    assert from_json(Path, "x/y", "x") == Path("x/y")


@pytest.mark.parametrize("number", [math.nan, math.inf, np.float32("nan")])
def test_nan_is_refused(number: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": number})
    assert not list(tmp_path.iterdir())


def test_things_without_a_form_are_refused() -> None:
    with pytest.raises(TypeError, match="set has no form in JSON"):
        to_json({1, 2})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nmae": "b"}, "plan: unknown key 'nmae'; did you mean 'name'?"),
        ({"name": 1}, "plan: name: expected a text, found 1"),
        ({"inner": []}, "plan: inner: expected an object, found []"),
        ({"inner": {"size": [1, 2]}}, "plan: inner: key 'rate' is missing"),
        ({"inner": {"size": [1], "rate": 1}}, "plan: inner: size: expected a list of 2, found [1]"),
        ({"inner": {"size": [1, 2.5], "rate": 1}}, "plan: inner: size: [1]: expected a whole number, found 2.5"),
        ({"inner": {"size": [1, True], "rate": 1}}, "plan: inner: size: [1]: expected a whole number, found true"),
        ({"inner": {"size": [1, 2], "rate": True}}, "plan: inner: rate: expected a number, found true"),
        ({"flags": [1]}, "plan: flags: [0]: expected true or false, found 1"),
        ({"flags": "yes"}, 'plan: flags: expected a list, found "yes"'),
        ({"table": {"x": "y"}}, 'plan: table: x: expected a number, found "y"'),
        ({"table": 3}, "plan: table: expected an object, found 3"),
        ({"notes": "n"}, 'plan: notes: expected a list, found "n"'),
        ({"mode": "quick"}, "plan: mode: expected one of 'slow', 'fast', found \"quick\""),
        ({"extra": "1"}, 'plan: extra: expected a whole number, found "1"'),
    ],
)
def test_a_mistake_is_named_with_its_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError) as error:
        from_json(Outer, {**GOOD, **change}, "plan")
    assert str(error.value) == message


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"absent\.json: no such file"):
        read_json(tmp_path / "absent.json")
    (tmp_path / "broken.json").write_text('{"a": 1,}')
    with pytest.raises(PlanError, match=r"broken\.json: not valid JSON .*Correct the file"):
        read_json(tmp_path / "broken.json")
    (tmp_path / "latin.json").write_bytes('{"a": "ä"}'.encode("latin-1"))
    with pytest.raises(PlanError, match="not valid JSON"):
        read_json(tmp_path / "latin.json")
