from __future__ import annotations

from itertools import count
from pathlib import Path

from benchmarks.measuring import Row, Setting, table


def test_variants_are_measured_in_turn_after_a_warm_up() -> None:
    seconds, calls = count(), []
    setting = Setting(Path(), "27", Path(), 1, lambda: float(next(seconds)))
    variants = {name: lambda name=name: calls.append(name) for name in ("first", "second")}
    assert setting.in_turn(variants, rounds=3) == {"first": 1.0, "second": 1.0}
    assert calls == ["first", "second"] * 4


def test_a_round_to_warm_up_may_be_left_out() -> None:
    calls: list[int] = []
    setting = Setting(Path(), "27", Path(), 1, lambda: 0.0)
    setting.in_turn({"first": lambda: calls.append(1)}, rounds=2, warm_up=False)
    assert calls == [1, 1]


def test_the_table_shows_what_a_row_has() -> None:
    rows = [
        Row("eager", "slice", 1.5),
        Row("ours", "slice", 0.25, 6.0, "times as fast", ">= 4"),
        Row("R2", ratio=0.999),
    ]
    assert table(rows)[2:] == [
        "| eager | 1.5 s a slice |  |  |",
        "| ours | 250 ms a slice | 6 times as fast | >= 4 |",
        "| R2 |  | 0.999 |  |",
    ]
