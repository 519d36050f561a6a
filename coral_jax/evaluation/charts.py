"""Charts of an evaluation as inline SVG, drawn by matplotlib: points with intervals, lines, shaded tables.

Each function takes the id of the chart, which no other chart of the page has, and returns one <svg> element.  The same
arguments give the same text.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

COLOURS = ("#2b6cd4", "#d9480f", "#2b8a3e", "#9c36b5", "#c79a00", "#0b7285", "#c2255c", "#5f3dc4", "#868e96", "#7a4419")
_INK, _FAINT, _RULE, _PAPER = "#1c1e24", "#6b6f78", "#e0e2e8", "#ffffff"
# A point is 4/3 of a page's pixel: sizes below are 11, 12 and 10 pixels.
_TICK, _TITLE, _SMALL = 8.25, 9.0, 7.5
_STYLE = {
    "svg.fonttype": "none",  # text stays text, which can be searched and copied
    "text.parse_math": False,  # dollars in a prompt are no formula
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: places do not depend on the machine's fonts
    "figure.dpi": 72,  # the backend's own, so that ticks made before saving are those that are saved
    "savefig.transparent": True,
    "axes.spines.left": False, "axes.spines.right": False, "axes.spines.top": False, "axes.spines.bottom": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": _RULE, "grid.linewidth": 0.75,
    "axes.labelcolor": _INK, "axes.labelsize": _TITLE, "axes.xmargin": 0.06, "axes.ymargin": 0.06,
    "xtick.labelsize": _TICK, "ytick.labelsize": _TICK, "xtick.color": _FAINT, "ytick.color": _FAINT,
    "xtick.major.size": 0, "ytick.major.size": 0,
}  # fmt: skip


class Point(NamedTuple):
    """A point of a scatter chart: its series, a short label, and its place: (value, low, high), the ends may be None."""

    series: str
    label: str
    x: tuple[float, float | None, float | None]
    y: tuple[float, float | None, float | None]


class Line(NamedTuple):
    """A line of a chart, and a place on it that a dot marks (None for no dot)."""

    series: str
    x: Sequence[float]
    y: Sequence[float]
    mark: tuple[float, float] | None


def colour_of(series: str, all_series: Sequence[str]) -> str:
    """The series' colour, "#rrggbb": the same in every chart that is given the same list.  ValueError if it is not in it."""
    return COLOURS[list(all_series).index(series) % len(COLOURS)]


def scatter(chart: str, points: Sequence[Point], all_series: Sequence[str], titles: tuple[str, str]) -> str:
    """Labelled points with thin lines for their intervals, axes from zero; titles are those of the x and y axis."""
    with _styled(chart):
        figure, axes = _axes(8.4, 4.6, titles)
        axes.update_datalim([(0, 0)])
        for point in points:
            (x, x_low, x_high), (y, y_low, y_high) = point.x, point.y
            colour = colour_of(point.series, all_series)
            thin = {"color": colour, "alpha": 0.4, "linewidth": 1}
            if x_low is not None:
                axes.plot((x_low, x_high), (y, y), **thin)
            if y_low is not None:
                axes.plot((x, x), (y_low, y_high), **thin)
            # With one zorder for both, a point hides the label of the point that it covers.
            axes.plot(x, y, "o", color=colour, markersize=12.5, markeredgecolor=_PAPER, markeredgewidth=0.75, zorder=3)
            axes.text(x, y, point.label, color=_PAPER, size=_SMALL, ha="center", va="center_baseline", zorder=3)
        return _svg(figure, chart)


def lines(chart: str, curves: Sequence[Line], all_series: Sequence[str], titles: tuple[str, str]) -> str:
    """Lines, some with a dot; titles are those of the x and y axis."""
    with _styled(chart):
        figure, axes = _axes(4, 2.7, titles)
        for curve in curves:
            axes.plot(curve.x, curve.y, color=colour_of(curve.series, all_series), linewidth=1.4)
        for curve in curves:  # dots lie over all lines
            if curve.mark is not None:
                edge = colour_of(curve.series, all_series)
                axes.plot(*curve.mark, "o", color=_PAPER, markersize=6, markeredgecolor=edge, markeredgewidth=1.5, zorder=3)
        return _svg(figure, chart)


def shaded_table(chart: str, rows: dict[str, Sequence[float]], columns: Sequence[str], all_series: Sequence[str]) -> str:
    """A table of shares from 0 to 1, each cell as dark as its share; a row a series, with as many shares as columns."""
    shares = np.array(list(rows.values()), float)
    opacity = 0.04 + 0.96 * np.sqrt(shares.clip(0, 1))  # the root lets small shares show
    cells = [[to_rgba(colour_of(series, all_series), o) for o in row] for series, row in zip(rows, opacity, strict=True)]
    with _styled(chart):
        figure = Figure((0.46 * len(columns), 0.26 * len(rows)))  # of the cells; the names around them are added to it
        axes = figure.add_axes((0, 0, 1, 1))
        axes.pcolormesh(np.array(cells), edgecolors=_PAPER, linewidth=1.5)
        axes.grid(False)
        axes.invert_yaxis()
        axes.xaxis.tick_top()
        axes.set_xticks(np.arange(len(columns)) + 0.5, columns, size=_SMALL)
        axes.set_yticks(np.arange(len(rows)) + 0.5, list(rows), color=_INK, size=_TITLE)
        for (row, column), share in np.ndenumerate(shares):
            ink = _PAPER if share > 0.3 else _INK
            axes.text(column + 0.5, row + 0.5, _percent(share), color=ink, size=_SMALL, ha="center", va="center")
        return _svg(figure, chart, bbox_inches="tight", pad_inches=0.04)


@contextmanager
def _styled(chart: str) -> Iterator[None]:
    """matplotlib's defaults with this module's style, whatever the user's matplotlibrc says."""
    with style.context(["default", _STYLE | {"svg.hashsalt": chart}]):
        yield


def _axes(width: float, height: float, titles: tuple[str, str]) -> tuple[Figure, Axes]:
    """A figure of a size in inches, and its axes."""
    figure = Figure((width, height), layout="constrained")
    axes = figure.add_subplot(xlabel=titles[0], ylabel=titles[1])
    axes.ticklabel_format(useOffset=False)
    return figure, axes


def _svg(figure: Figure, chart: str, **how: object) -> str:
    """The figure as an <svg> element without a date; the artists' ids begin with the chart's, others are salted with it."""
    figure.draw_without_rendering()  # makes the ticks, which are artists, too
    figure.set_layout_engine("none")  # another layout could need more ticks
    for number, artist in enumerate(figure.findobj()):
        artist.set_gid(f"{chart}-{number}")
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")), **how)
    text = file.getvalue()
    return text[text.index("<svg") :]  # an XML declaration has no place inside a page


def _percent(share: float) -> str:
    if share < 0.0005:
        return ""
    return f"{share:.0%}" if share >= 0.0095 else f"{share:.1%}"
