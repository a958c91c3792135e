from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edgeslim.onboard.events import EVENTS, WATCH_EVENTS
from edgeslim.onboard.progress import JSON, Bar, Event, Lines, clock, resident_mib

GOLDEN = Path(__file__).parents[1] / "golden"
BAND: dict[str, JSON] = {
    "band": 3,
    "bands": 17,
    "tiles_done": 1200,
    "tiles_total": 6800,
    "tiles_per_s": 812.5,
    "eta_s": 6.9,
    "memory_mib": 187.25,
}
EXAMPLES = (
    Event(
        "start",
        {"scene": "in/é.tif", "out": "o", "tiles": 6800, "bands": 17, "resumed_bands": 2, "memory_mib": 190.0},
    ),
    Event("band", BAND),
    Event("check", {"ok": True, "difference": 3.8e-06}),
    Event("warning", {"text": 'found "no" CRS\nat all'}),
    Event("finishing"),
    Event("stopped", {"band": 4, "bands": 17, "reason": "SIGTERM"}),
    Event("done", {"seconds": 8.4, "tiles": 6800}),
    Event("error", {"text": "a.tif: damaged; copy it again", "exit_code": 1}),
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-999, 999).map(lambda i: i / 8) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def test_events_as_lines() -> None:
    stream = io.StringIO()
    with Lines(stream) as lines:
        for event in EXAMPLES:
            lines(event)
    masked = re.sub(r'"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"', '"time":"TIME"', stream.getvalue())
    assert masked == (GOLDEN / "events.ndjson").read_text(encoding="utf-8")


def test_examples_have_the_published_fields() -> None:
    assert {event.kind: set(event.data) for event in EXAMPLES} == {k: set(f.__annotations__) for k, f in EVENTS.items()}
    assert not set(WATCH_EVENTS) & set(EVENTS)


@given(st.text(min_size=1), st.dictionaries(st.text().filter(lambda k: k not in ("schema", "time", "event")), values))
def test_a_line_is_read_back(kind: str, data: dict[str, JSON]) -> None:
    line = Event(kind, data).line()
    assert line.isascii()
    assert "\n" not in line
    assert Event.parse(line) == Event(kind, data)


@given(st.text())
def test_other_text_is_no_event(text: str) -> None:
    assert Event.parse(text) is None


def test_not_finite_is_null() -> None:
    data: dict[str, JSON] = {"eta_s": float("nan"), "rates": [float("inf"), 55820.77400809166], "difference": 1 / 3e6}
    record = json.loads(Event("band", data).line())
    assert (record["eta_s"], record["rates"], record["difference"]) == (None, [None, 55820.8], 3.33333e-07)


def test_a_reader_that_went_away() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    lines = Lines(stream)
    lines(EXAMPLES[0])
    lines(EXAMPLES[1])
    with pytest.raises(BrokenPipeError):
        stream.close()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_bar_is_one_line_that_says_all(width: int) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system=None, highlight=False)
    with Bar(console) as bar:
        bar(Event("start", {**EXAMPLES[0].data, "scene": "in/a_scene_with_a_name_longer_than_the_terminal.tif"}))
        bar(EXAMPLES[1])
        bar._bar.refresh()  # type: ignore[union-attr]
        shown = re.split(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n", stream.getvalue())
        bar(EXAMPLES[6])
    line = next(part for part in reversed(shown) if "tiles/s" in part)
    assert len(line.rstrip()) <= width - 3  # room for the ^C that a terminal writes
    for part in ("18%", "band 3/17", "812 tiles/s", "187 MiB", "0:07 left"):
        assert part in line
    assert line.startswith("a_" if width > 60 else "a")
    assert stream.getvalue().endswith("\x1b[?25h") or stream.getvalue().rstrip().endswith("\x1b[2K")


def test_the_bar_answers_a_stop_at_once() -> None:
    asked: list[str] = []
    bar = Bar(Console(file=io.StringIO(), force_terminal=True, width=80), lambda: asked[0] if asked else None)
    with bar:
        bar(EXAMPLES[0])
        assert bar.facts() == "starting"
        bar(EXAMPLES[1])
        assert bar.facts() == "band 3/17  812 tiles/s  187 MiB  0:07 left"
        asked.append("SIGINT")
        assert bar.facts() == "band 3/17  stops after this band (SIGINT)"
        bar(EXAMPLES[4])
        assert bar.facts() == "writing results"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_resident_memory_follows_what_is_touched() -> None:
    before = resident_mib()
    block = np.ones(64 << 20, np.uint8)
    after = resident_mib()
    assert before is not None
    assert after is not None
    assert after - before > 32
    assert block[-1] == 1
    assert resident_mib(os.getpid()) == pytest.approx(after, abs=16)
    assert resident_mib(2**22 + 1) is None
