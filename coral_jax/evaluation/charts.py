"""Simple charts as SVG text: points with intervals, lines, shaded tables.  No plotting library is needed."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

COLOURS = ("#2b6cd4", "#d9480f", "#2b8a3e", "#9c36b5", "#c79a00", "#0b7285", "#c2255c", "#5f3dc4", "#868e96", "#7a4419")
_INK, _FAINT, _RULE = "#1c1e24", "#7a7e88", "#e0e2e8"
_LEFT, _TOP, _BOTTOM = 62, 14, 46  # around the plot


class Point(NamedTuple):
    """A point of a scatter chart: its series, a short label, what its tooltip says, and its place with intervals or None."""

    series: str
    label: str
    tip: str
    x: tuple[float, float | None, float | None]
    y: tuple[float, float | None, float | None]


class Line(NamedTuple):
    """A line of a chart, and a place on it that a dot marks (None for no dot)."""

    series: str
    x: Sequence[float]
    y: Sequence[float]
    mark: tuple[float, float] | None


def colour_of(series: str, all_series: Sequence[str]) -> str:
    """The series' colour: the same in every chart that is given the same list."""
    return COLOURS[list(all_series).index(series) % len(COLOURS)]


def scatter(points: Sequence[Point], all_series: Sequence[str], titles: tuple[str, str]) -> str:
    """Points with thin lines for their intervals; titles are those of the x and y axis."""
    width, height = 640, 400
    xs = [value for point in points for value in point.x if value is not None]
    ys = [value for point in points for value in point.y if value is not None]
    frame = _Frame(width, height, _range(xs), _range(ys), titles)
    parts = []
    for point in points:
        colour = colour_of(point.series, all_series)
        (x, x_low, x_high), (y, y_low, y_high) = point.x, point.y
        if x_low is not None:
            parts.append(frame.segment((x_low, y), (x_high, y), colour, 0.35))
        if y_low is not None:
            parts.append(frame.segment((x, y_low), (x, y_high), colour, 0.35))
        left, top = frame.place(x, y)
        parts.append(
            f'<g><title>{escape(point.tip)}</title><circle cx="{left:.1f}" cy="{top:.1f}" r="8" fill="{colour}"/>'
            f'<text x="{left:.1f}" y="{top + 3.5:.1f}" fill="#fff" font-size="10" text-anchor="middle">'
            f"{escape(point.label)}</text></g>"
        )
    return frame.svg("".join(parts))


def lines(curves: Sequence[Line], all_series: Sequence[str], titles: tuple[str, str], title: str) -> str:
    """Lines, under a title of the chart."""
    xs = [value for line in curves for value in line.x]
    ys = [value for line in curves for value in line.y]
    frame = _Frame(420, 270, _range(xs), _range(ys, from_zero=False), titles, title)
    parts = []
    for line in curves:
        colour = colour_of(line.series, all_series)
        places = " ".join("{:.1f},{:.1f}".format(*frame.place(x, y)) for x, y in zip(line.x, line.y, strict=True))
        parts.append(
            f"<g><title>{escape(line.series)}</title>"
            f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.8"/></g>'
        )
        if line.mark is not None:
            left, top = frame.place(*line.mark)
            parts.append(f'<circle cx="{left:.1f}" cy="{top:.1f}" r="4" fill="#fff" stroke="{colour}" stroke-width="2"/>')
    return frame.svg("".join(parts))


def shaded_table(rows: dict[str, Sequence[float]], columns: Sequence[str], all_series: Sequence[str], title: str) -> str:
    """A table of shares from 0 to 1, each cell as dark as its share; a row a series."""
    cell, line, label = 40, 24, 210
    width, height = label + cell * len(columns) + 10, 56 + line * len(rows)
    parts = [_text(4, 16, title, size=14)]
    parts += [_text(label + cell * (i + 0.5), 40, name, _FAINT, 10, "middle") for i, name in enumerate(columns)]
    for row, (name, shares) in enumerate(rows.items()):
        top = 48 + row * line
        parts.append(_text(label - 8, top + 16, name, size=12, anchor="end"))
        for column, share in enumerate(shares):
            left = label + column * cell
            parts.append(
                f'<rect x="{left}" y="{top}" width="{cell - 2}" height="{line - 2}" rx="2" '
                f'fill="{colour_of(name, all_series)}" fill-opacity="{0.04 + 0.96 * min(max(share, 0), 1) ** 0.5:.3f}"/>'
            )
            text = "" if share < 0.0005 else f"{share:.0%}" if share >= 0.0095 else f"{share:.1%}"
            ink = "#ffffff" if share > 0.3 else _INK
            parts.append(_text(left + cell / 2 - 1, top + 15, text, ink, 10, "middle"))
    return _wrap(width, height, "".join(parts))


def legend(all_series: Sequence[str]) -> str:
    """Colours and names of the series, as HTML."""
    keys = (f'<span class="key"><i style="background:{colour_of(s, all_series)}"></i>{escape(s)}</span>' for s in all_series)
    return f'<p class="legend">{"".join(keys)}</p>'


class _Frame:
    """Axes with ticks, and where a value lies between them."""

    def __init__(
        self, width: int, height: int, x: tuple[float, float], y: tuple[float, float], titles: tuple[str, str], title: str = ""
    ):
        self._width, self._height, self._x, self._y, self._titles, self._title = width, height, x, y, titles, title
        self._top = _TOP + (20 if title else 0)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Pixels from the left and the top."""
        right, bottom = self._width - 14, self._height - _BOTTOM
        across, up = ((v - low) / (high - low) for v, (low, high) in ((x, self._x), (y, self._y)))
        return _LEFT + across * (right - _LEFT), bottom - up * (bottom - self._top)

    def segment(self, start: tuple[float, float], end: tuple[float, float], colour: str, opacity: float = 1.0) -> str:
        """A thin line between two places."""
        (x1, y1), (x2, y2) = self.place(*start), self.place(*end)
        return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-opacity="{opacity}"/>'

    def svg(self, content: str) -> str:
        """The chart with this content."""
        parts = [_text(_LEFT, 18, self._title, size=14)] if self._title else []
        for tick in _ticks(*self._y):
            parts.append(self.segment((self._x[0], tick), (self._x[1], tick), _RULE))
            parts.append(_text(_LEFT - 8, self.place(self._x[0], tick)[1] + 4, f"{tick:g}", _FAINT, 11, "end"))
        for tick in _ticks(*self._x):
            left, bottom = self.place(tick, self._y[0])
            parts.append(self.segment((tick, self._y[0]), (tick, self._y[1]), _RULE))
            parts.append(_text(left, bottom + 16, f"{tick:g}", _FAINT, 11, "middle"))
        middle = (self._top + self._height - _BOTTOM) / 2
        parts.append(_text((_LEFT + self._width) / 2, self._height - 8, self._titles[0], _INK, 12, "middle"))
        upright = f'transform="rotate(-90 14 {middle:.0f})"'
        parts.append(_text(14, middle, self._titles[1], _INK, 12, "middle", upright))
        return _wrap(self._width, self._height, "".join(parts) + content)


def _range(values: Sequence[float], from_zero: bool = True) -> tuple[float, float]:
    """Ends of an axis that shows all the values, with a margin."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if from_zero:
        low = min(low, 0.0)
    margin = 0.06 * ((high - low) or 1.0)
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between the ends, about five."""
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    first = math.ceil(low / step)
    return [round(i * step, 12) for i in range(first, math.floor(high / step) + 1)]


def _text(x: float, y: float, text: str, fill: str = _INK, size: int = 12, anchor: str = "start", extra: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}" font-size="{size}" text-anchor="{anchor}" {extra}>{escape(text)}</text>'
    )


def _wrap(width: int, height: int, content: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif">{content}</svg>'
    )
