"""Charts: where their points lie, what they say, and that several fit into one page."""

import xml.etree.ElementTree as ET

import matplotlib
import pytest
from svg import SVG, ids, styles, texts

from coral_jax.evaluation import charts


def test_points_of_a_chart_lie_where_they_should():
    points = [charts.Point("a<b", "one", (4.0, None, None), (0.1, None, None)),
              charts.Point("c", "two", (10.0, 9.0, 10.0), (0.5, 0.4, 0.6))]  # fmt: skip
    tree = ET.fromstring(charts.scatter("chart", points, ["a<b", "c"], ("$leak$ & <more>", "success")))
    places = {text: (float(element.get("x")), float(element.get("y"))) for text, element in texts(tree) if element.get("x")}
    assert places["one"][0] < places["two"][0] and places["one"][1] > places["two"][1]
    assert "$leak$ & <more>" in places  # no formula, no markup
    assert places["0"][0] < places["one"][0] and places["0.0"][1] > places["one"][1]  # both axes have a zero
    for text, value in (("one", "4"), ("two", "10")):  # below a point is the tick of its value
        assert places[text][0] == pytest.approx(places[value][0], abs=0.1)
    first, second = charts.COLOURS[:2]
    assert [len(styles(tree, f"fill: {colour}; stroke: #ffffff")) for colour in (first, second)] == [1, 1]
    assert not styles(tree, f"stroke: {first}") and len(styles(tree, f"stroke: {second}", "stroke-opacity")) == 2


def test_lines_of_a_chart_have_dots_where_they_are_asked_for():
    curves = [charts.Line("a", [0, 1, 2], [3, 2, 2], (1, 2)), charts.Line("b", [0, 2], [3, 1], None),
              charts.Line("c", [1], [3], None)]  # fmt: skip
    tree = ET.fromstring(charts.lines("chart", curves, ["a", "b", "c"], ("s", "loss")))
    drawn = [len(styles(tree, "fill: none", f"stroke: {colour}")) for colour in charts.COLOURS[:3]]
    (dot,) = tree.iter(f"{SVG}use")
    assert drawn == [1, 1, 1] and f"fill: #ffffff; stroke: {charts.COLOURS[0]}" in dot.get("style")
    assert {"s", "loss"} < {text for text, _ in texts(tree)}


def test_a_shaded_table_says_and_shades_its_shares():
    rows = {"a & b": [0.0, 0.004, 1.0], "c": [0.25, 0.0951, 0.0004]}
    tree = ET.fromstring(charts.shaded_table("chart", rows, ["1\n4px", "2\n8px", "3\n8px"], ["c", "a & b"]))
    said = [text for text, _ in texts(tree)]
    assert said == ["1", "4px", "2", "8px", "3", "8px", "a & b", "c", "0.4%", "100%", "25%", "10%"]
    shades = [[style.get("style") for style in styles(tree, f"fill: {colour}", "stroke")] for colour in charts.COLOURS[:2]]
    assert [len(of_series) for of_series in shades] == [3, 3]
    assert "fill-opacity: 0.52;" in shades[0][0] and "fill-opacity: 0.04;" in shades[1][0] and "opacity" not in shades[1][2]


def test_charts_share_a_page_and_nothing_else():
    line = charts.Line("a", [0, 1], [0, 1], (1, 1))

    def draw(chart):
        return charts.lines(chart, [line], ["a"], ("x", "y")) + charts.shaded_table(f"{chart}-table", {"a": [1]}, ["1"], ["a"])

    before = dict(matplotlib.rcParams)
    page = ET.fromstring(f"<page>{draw('first')}{draw('second')}</page>")
    assert len(ids(page)) == len(set(ids(page))) > 40
    values = [value for element in page.iter() for value in element.attrib.values()]
    links = {value.partition("#")[2].rstrip(")") for value in values if value.startswith(("#", "url(#"))}
    assert links and links <= set(ids(page))
    assert draw("first") == draw("first")
    assert dict(matplotlib.rcParams) == before
