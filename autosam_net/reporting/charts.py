"""Charts as inline SVG of a few kilobytes; every mark says in a tooltip what it is, colours are those of the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from autosam_net.evaluation.interval import Interval

WIDTH, HEIGHT = 420, 220  # of a chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 8, 38  # what axes and their texts take
BINS = 24
MANY = 300  # dots in a column


@dataclass(frozen=True)
class Scale:
    """Values between `low` and `high` on the picture between `start` and `stop`."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """Return the place of a value, kept inside the chart."""
        span = self.high - self.low or 1.0
        share = min(max((value - self.low) / span, 0.0), 1.0)
        return self.start + share * (self.stop - self.start)

    def ticks(self, number: int = 5) -> list[float]:
        """Return round values, about `number` of them."""
        span = self.high - self.low
        if not span > 0:
            return [self.low]
        power = 10.0 ** math.floor(math.log10(span / number))
        step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if span / (power * nice) <= number)
        first = math.ceil(self.low / step - 1e-9)
        return [step * index for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def whisker(interval: Interval, low: float = 0.0, high: float = 1.0) -> Markup:
    """Return a small picture of a mean and its interval on a line from `low` to `high`."""
    scale = Scale(low, high, 4, 176)
    marks = [_line(4, 9, 176, 9, "rail")]
    if interval.low is not None and interval.high is not None:
        marks.append(_line(scale(interval.low), 9, scale(interval.high), 9, "range"))
    if interval.mean is not None:
        marks.append(f'<circle class="mean" cx="{scale(interval.mean):.1f}" cy="9" r="4.5"/>')
    return Markup('<svg class="whisker" viewBox="0 0 180 18" role="img" aria-hidden="true">{}</svg>').format(
        Markup("".join(marks))
    )


def histogram(values: Sequence[float], label: str, others: Sequence[float] = ()) -> Markup:
    """Return how often values occur; `others` (the foreground, say) are drawn over them, each scaled to its peak."""
    everything = np.array([*values, *others], dtype=float)
    low, high = float(everything.min()), float(everything.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    x = Scale(low, high, LEFT, WIDTH - RIGHT)
    counts = np.histogram(values, edges)[0]
    y = Scale(0, float(counts.max()) or 1.0, HEIGHT - BOTTOM, TOP)
    marks = _bars(counts, edges, x, y, "bar", 1.0)
    if len(others):
        over = np.histogram(others, edges)[0]
        marks += _bars(over, edges, x, y, "bar over", counts.max() / max(over.max(), 1))
    ticks = [] if len(others) else [tick for tick in y.ticks(4) if tick == round(tick)]
    return _chart(label, marks, x, y, x_ticks=x.ticks(), y_ticks=ticks)


def _bars(counts: NDArray[np.integer], edges: NDArray[np.float64], x: Scale, y: Scale, kind: str, by: float) -> str:
    bars = []
    for count, start, stop in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
        if count:
            top, left = y(count * by), x(start)
            size = f'width="{max(x(stop) - left - 1, 1):.1f}" height="{y.start - top:.1f}"'
            title = f"<title>{start:.4g} to {stop:.4g}: {count}</title>"
            bars.append(f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" {size}>{title}</rect>')
    return "".join(bars)


def box_plot(columns: Sequence[tuple[str, Sequence[tuple[str, float]]]], label: str, high: float | None) -> Markup:
    """Return median, quartiles and every case of each column; whiskers reach the 5th and the 95th percentile.

    Args:
        columns: name and (case, value) pairs; those without a value are left out.
        high: end of the axis; if None, the largest value.
    """
    top = max((value for _, entries in columns for _, value in entries), default=1.0) if high is None else high
    y = Scale(0.0, top or 1.0, HEIGHT - BOTTOM, TOP)
    width = max(WIDTH, LEFT + RIGHT + 70 * len(columns))
    step = (width - LEFT - RIGHT) / max(len(columns), 1)
    centres = [LEFT + step * (index + 0.5) for index in range(len(columns))]
    marks = "".join(
        _box(entries, centre, y, min(step, 90)) for (_, entries), centre in zip(columns, centres, strict=True)
    )
    names = "".join(
        _text(centre, HEIGHT - BOTTOM + 15, _short(name, step), "middle")
        for (name, _), centre in zip(columns, centres, strict=True)
    )
    x = Scale(0, 1, LEFT, width - RIGHT)
    return _chart(label, marks + names, x, y, y_ticks=y.ticks(), width=width)


def _box(entries: Sequence[tuple[str, float]], centre: float, y: Scale, width: float) -> str:
    if not entries:
        return ""
    values = [value for _, value in entries]
    low, first, median, third, high = (y(float(part)) for part in np.percentile(values, (5, 25, 50, 75, 95)))
    half = 0.22 * width
    marks = [
        _line(centre, low, centre, high, "whisk"),
        f'<rect class="box" x="{centre - half:.1f}" y="{third:.1f}" width="{2 * half:.1f}" '
        f'height="{max(first - third, 1):.1f}"/>',
        _line(centre - half, median, centre + half, median, "median"),
    ]
    for index, (case, value) in enumerate(entries):
        if len(entries) > MANY and high <= y(value) <= low:
            continue  # of many cases only those beyond the lines
        aside = centre + 0.36 * width * ((0.618034 * index) % 1.0 - 0.5)  # spread evenly, the same at every run
        title = f"<title>{escape(case)}: {value:.3g}</title>"
        marks.append(f'<circle class="dot" cx="{aside:.1f}" cy="{y(value):.1f}" r="2.6">{title}</circle>')
    return "".join(marks)


def line_chart(
    lines: Iterable[tuple[str, Sequence[float], Sequence[float]]], label: str, x_label: str, high: float | None = None
) -> Markup:
    """Return lines over a common axis; each is a name, its x and its y. `high` is the end of the y axis."""
    lines = list(lines)
    places = [value for _, xs, _ in lines for value in xs]
    values = [value for _, _, ys in lines for value in ys]
    x = Scale(min(places, default=0.0), max(places, default=1.0), LEFT, WIDTH - RIGHT)
    y = Scale(min(0.0, *values) if values else 0.0, high or max(values, default=1.0), HEIGHT - BOTTOM, TOP)
    marks = []
    for index, (name, xs, ys) in enumerate(lines):
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(xs, ys, strict=True))
        kind = f"line series{index % 7}"
        marks.append(f'<polyline class="{kind}" points="{points}"><title>{escape(name)}</title></polyline>')
        last = f"<title>{escape(name)}: {ys[-1]:.3g}</title>" if len(ys) else ""
        if last:
            marks.append(f'<circle class="{kind}" cx="{x(xs[-1]):.1f}" cy="{y(ys[-1]):.1f}" r="3">{last}</circle>')
    whole = [tick for tick in x.ticks() if tick == round(tick)]
    return _chart(label, "".join(marks), x, y, x_ticks=whole, y_ticks=y.ticks(), x_label=x_label)


def _chart(
    label: str,
    marks: str,
    x: Scale,
    y: Scale,
    x_ticks: Sequence[float] = (),
    y_ticks: Sequence[float] = (),
    x_label: str | None = None,
    width: float = WIDTH,
) -> Markup:
    """Return marks with their axes; `label` is that of the chart, `x_label` that of its lower axis."""
    base = HEIGHT - BOTTOM
    grid = [_line(LEFT, y(tick), width - RIGHT, y(tick), "grid") for tick in y_ticks]
    grid += [_text(LEFT - 6, y(tick) + 4, _number(tick), "end") for tick in y_ticks]
    grid += [_text(x(tick), base + 15, _number(tick), "middle") for tick in x_ticks]
    grid.append(_line(LEFT, base, width - RIGHT, base, "axis"))
    if x_label is not None:
        grid.append(_text((LEFT + width - RIGHT) / 2, HEIGHT - 5, str(escape(x_label)), "middle"))
    caption = Markup("<figcaption>{}</figcaption>").format(label)
    body = Markup('<svg class="chart" viewBox="0 0 {} {}" style="{}" role="img" aria-label="{}">{}</svg>')
    return Markup("<figure>{}{}</figure>").format(
        caption, body.format(f"{width:g}", HEIGHT, _size(width), label, Markup("".join(grid) + marks))
    )


def _size(width: float) -> str:
    """Return the style by which a chart fits its place, and one that is wider than usual can be scrolled."""
    return "" if width <= WIDTH else f"min-width:{0.8 * width:.0f}px"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _number(value: float) -> str:
    return f"{value:.6g}" if abs(value) < 1e5 else f"{value:.0e}"


def _short(name: str, width: float) -> Markup:
    """Return a name cut to what fits, whole in its tooltip."""
    room = max(4, int(width / 6.5))
    shown = name if len(name) <= room else name[: room - 1] + "…"
    return Markup("{}<title>{}</title>").format(shown, name)
