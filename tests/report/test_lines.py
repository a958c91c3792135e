"""Lines: what a chart of score against compute draws and tells."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

from edgeslim.report.lines import Chart, Series, line_chart
from edgeslim.report.retention import retention_svg
from edgeslim.retention import Kept, Mean, Retention, with_fronts

WIDTHS = Series("widths", ((0.0, 0.1), (1.0, 0.5)))
FRONT = Series("front", ((0.0, 0.1), (0.5, 0.9)), "chosen", ("0.5 × 2", "1 × 3"), dash=0)


def test_points_tell_their_labels_and_lines_their_names() -> None:
    svg = line_chart(Chart("title", "x", "y", (WIDTHS, FRONT), level=("pixels", 0.3), names_aside=True))
    ElementTree.fromstring(svg)
    assert [svg.count(f"<title>{label}</title>") for label in FRONT.labels] == [1, 1]
    assert ">1 × 3</text>" in svg
    # Behind each name a sample of its line.
    assert svg.count('class="line"') == 4
    plain = line_chart(Chart("title", "x", "y", (WIDTHS, replace(FRONT, labels=()))))
    assert plain.count("<title>") == 1
    assert plain.count('class="line"') == 2


def mean(value: float) -> Mean:
    return Mean(value, value, value)


def test_the_plot_of_a_measurement_names_the_cuts_on_its_front() -> None:
    scores = {(0.5, 1): 0.5, (0.5, 2): 0.6, (1.0, 1): 0.7, (1.0, 2): 0.65}
    kept = with_fronts(
        Kept(width, blocks, width * blocks, probe, mean(score), score, None, None)
        for (width, blocks), score in scores.items()
        for probe in ("k-NN", "linear")
    )
    # A half of two blocks costs as much as a whole one, which scores more; both blocks cost more, and score less.
    assert {(one.width_multiplier, one.blocks) for one in kept if one.front} == {(0.5, 1), (1.0, 1)}
    pixels = tuple(Kept(0.0, 0, 0.0, probe, mean(0.4), 0.4, None, None) for probe in ("k-NN", "linear"))
    record = Retention("e", "tiles", 9, {}, "first", "accuracy", "split", (0, 1), pixels, kept, (), ())
    svg = retention_svg(record)
    ElementTree.fromstring(svg.partition("?>")[2] or svg)
    assert svg.count("<title>0.5 × 1</title>") == svg.count("<title>1 × 1</title>") == 2
    assert "<title>1 × 2</title>" not in svg
    assert [one.gflop for one in record.front("linear")] == [0.5, 1.0]
