from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from autosam_net.evaluation.interval import Interval
from autosam_net.reporting import charts

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


@settings(max_examples=25)
@given(VALUES, st.text(max_size=8))
def test_charts_of_any_values_are_sound(values: list[float], name: str) -> None:
    name = "".join(letter for letter in name if letter.isprintable())
    pairs = [(name, value) for value in values]
    for chart in (
        charts.histogram(values, name),
        charts.histogram(values, name, values[:1]),
        charts.box_plot([(name, pairs), ("empty", [])], name, None),
        charts.line_chart([(name, range(len(values)), values)], name, "epoch"),
        charts.whisker(Interval(values[0], min(values), max(values))),
    ):
        ElementTree.fromstring(str(chart))
        assert "nan" not in chart.replace(str(name), "")


@given(st.floats(-1e5, 1e5), st.floats(1e-3, 1e5), st.integers(2, 8))
def test_ticks_are_few_and_inside(low: float, span: float, number: int) -> None:
    ticks = charts.Scale(low, low + span, 0, 100).ticks(number)
    assert len(ticks) <= number + 1
    assert all(low - 1e-6 * span <= tick <= low + span + 1e-6 * span for tick in ticks)


def test_text_is_escaped() -> None:
    page = charts.box_plot([("<b>", [("<i>", 0.5)])], "<u>", 1.0)
    assert not {"<b>", "<i>", "<u>"} & {page[place : place + 3] for place in range(len(page))}
    assert "&lt;i&gt;: 0.5" in page
