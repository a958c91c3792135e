"""The page of a plan: whole, harmless, and with every step in it. EDGESLIM_GOLDEN=write rewrites the golden texts."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edgeslim.cli import main
from edgeslim.device import take_device
from edgeslim.device_card import all_cards
from edgeslim.errors import EdgeslimError, InputError
from edgeslim.measurement import Measurement
from edgeslim.planning.budget import Ask
from edgeslim.planning.choose import NoWidthFits, make_plan
from edgeslim.planning.durations import Scene
from edgeslim.planning.plan import Plan, Tried
from edgeslim.profile import Profile, take_profile
from edgeslim.report.page import page, verdict, write_page
from edgeslim.report.pareto import MARKS, costs_of, mark_of
from edgeslim.score import Score
from edgeslim.shelf import card_paths
from edgeslim.target import take_target, targets_on

GOLDEN = Path(__file__).parents[1] / "golden"
VOID = {"meta", "br"}
LOADING = re.compile(r"<(script|link|img|iframe|object|embed|base|form)\b|@import|url\(|\bon\w+\s*=|javascript:", re.I)


class Reader(HTMLParser):
    """Checks that tags are closed in their order; keeps tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.lines: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open and data.strip():
            self.lines.append(" ".join(data.split()))


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def planned(device: str, encoder: str | Profile = "eurosat-rgb", **asked: object) -> Plan:
    board = take_device(device)
    usual = take_target("onnx")
    targets = [usual, *(t for t in targets_on(r.id for r in board.runtime) if t.id != usual.id)]
    try:
        profile = take_profile(encoder) if isinstance(encoder, str) else encoder
        return make_plan(profile, board, targets, Ask(**asked))  # type: ignore[arg-type]
    except NoWidthFits as refusal:
        return refusal.plan


SCENE = Scene(10980, 10980)
DEEP = replace(
    take_profile("eurosat-rgb"),
    scores=tuple(
        Score(width, "accuracy", "test part", value, "a test", depth=depth)
        for width, depth, value in ((1, None, 0.95), (0.5, None, 0.9), (1, 4, 0.953), (1, 3, 0.94), (0.6, 3, 0.93))
    ),
)
PLANS: dict[str, tuple[str, str | Profile, dict[str, object]]] = {
    "depth": ("raspberry-pi-4b-4gb", DEEP, {"latency_ms": 20.0}),
    "scores": ("raspberry-pi-4b-4gb", "eurosat-rgb", {"latency_ms": 22.0}),
    "no-scores": ("raspberry-pi-4b-4gb", "vit-l-16", {}),
    "many-budgets": (
        "raspberry-pi-4b-4gb",
        "eurosat-rgb",
        {
            "scene": SCENE,
            "deadline_s": 1800.0,
            "uplink_kb_day": 500.0,
            "uplink_days": 7.0,
            "min_score": 0.95,
            "latency_ms": 30.0,
            "memory_mib": 125.0,
            "energy_j": 1e4,
            "startup_s": 20.0,
            "artifact_mb": 4.0,
        },
    ),
    "few-scores": ("jetson-orin-nano-8gb", "prithvi-2-300", {"latency_ms": 15.0}),
    "whole": ("jetson-orin-nano-8gb", "vit-s-16", {"latency_ms": 100.0}),
    "nothing-fits": ("raspberry-pi-4b-4gb", "eurosat-rgb", {"latency_ms": 1.0}),
    "best-score-in-batches": (
        "raspberry-pi-4b-4gb",
        "eurosat-rgb",
        {"batch": 8, "latency_ms": 60.0, "objective": "score"},
    ),
    "unaligned": ("raspberry-pi-4b-4gb", "eurosat-rgb", {"gflop": 0.05, "memory_mib": 118.0}),
}


def made(name: str) -> Plan:
    device, encoder, asked = PLANS[name]
    return planned(device, encoder, **asked)


@pytest.mark.parametrize("name", ["scores", "nothing-fits", "best-score-in-batches", "depth"])
def test_what_the_page_says(name: str) -> None:
    plan = made(name)
    text = "\n".join(read(page(plan, take_device(plan.device))).lines) + "\n"
    path = GOLDEN / f"page-{name}.txt"
    if os.environ.get("EDGESLIM_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PLANS)
def test_every_step_is_in_every_panel_as_what_became_of_it(name: str) -> None:
    plan = made(name)
    text = page(plan, take_device(plan.device))
    panels = re.findall(r'<svg viewBox="0 0 \d{3} \d{3}".*?</svg>', text)
    costs = costs_of(plan)
    assert [cost.budget for cost in costs][:2] == ["latency_ms", "memory_mib"]
    asked = {name for name, limit in plan.budget.limits() if limit.basis == "asked"}
    refused = {miss.budget for step in plan.steps for miss in step.misses}
    assert {cost.budget for cost in costs} >= (asked | refused) - {"min_score", "max_w"}
    assert len(panels) == len(costs)
    wanted = Counter(mark_of(plan, step) for step in plan.steps)
    for cost, panel in zip(costs, panels, strict=True):
        assert Counter(re.findall(r'<g class="([\w-]+)"><title>', panel)) == wanted
        assert set(wanted) <= set(MARKS)
        assert panel.count('class="limit"') <= 2
        assert panel.count("band interval") == (plan.chosen.score_interval is not None)
        assert re.search(r">[\d.]+( with \d+ blocks)? (chosen|nearest)</text>", panel)
        assert panel.count('class="band stem"') == sum(step.estimate.depth is not None for step in plan.steps)
        drawn_over = len(re.findall(r'class="over( dense)?"', panel))
        over = sum(any(m.budget == cost.budget for m in s.misses) for s in plan.steps)
        whiskers = cost.budget in ("latency_ms", "startup_s", "deadline_s")
        assert drawn_over == (over if whiskers else 0)
        low, high = (float(v) for v in re.search(r'viewBox="0 0 (\d+) (\d+)"', panel).groups())  # type: ignore[union-attr]
        for x, y in re.findall(r'<text [^>]*x="([-\d.]+)" y="([-\d.]+)"', panel):
            assert 0 <= float(x) <= low
            assert 0 <= float(y) <= high
    table = text[text.index("All width steps") :]
    assert len(re.findall(r'<tr class="\w+">', table)) == len(plan.steps)


@pytest.mark.parametrize("name", PLANS)
def test_the_page_needs_nothing_and_is_told_in_words(name: str) -> None:
    plan = made(name)
    text = page(plan, take_device(plan.device))
    assert not LOADING.search(text)
    reader = read(text)
    ids = [value for _, name, value in reader.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for tag, name, value in reader.attributes:
        if name == "aria-labelledby":
            assert set(value.split()) <= set(ids)
        if tag == "svg" and name == "role":
            assert value == "img"
    assert reader.tags["h1"] == 1
    assert reader.tags["desc"] == len(costs_of(plan))


def test_a_page_of_every_board_and_of_every_encoder() -> None:
    encoders = [path.stem for path in card_paths("profiles")]
    pages = 0
    for device, encoder in [*((card.id, "eurosat-rgb") for card in all_cards()), *(("rpi5", one) for one in encoders)]:
        try:
            plan = planned(device, encoder)
        except EdgeslimError:  # a board that nothing is known of
            continue
        read(page(plan, take_device(device)))
        pages += 1
    assert pages >= len(encoders) + 20


HOSTILE = "\"'><script>alert(1)</script><svg onload=alert(2)>&amp;\x00</style></title>"


def test_hostile_names_stay_text() -> None:
    plan = made("many-budgets")
    basis = replace(plan.budget.gflop, basis=HOSTILE)
    steps = tuple(replace(s, estimate=replace(s.estimate, score_basis=HOSTILE), verdict=s.verdict) for s in plan.steps)
    hostile = replace(
        plan,
        encoder=HOSTILE,
        device_name=HOSTILE,
        power_mode=HOSTILE,
        power_mode_basis=HOSTILE,
        runtime=HOSTILE,
        runtime_basis=HOSTILE,
        target=HOSTILE,
        budget=replace(plan.budget, gflop=basis),
        chosen=replace(plan.chosen, score_basis=HOSTILE),
        steps=steps,
        tried=(Tried(HOSTILE, HOSTILE, HOSTILE, HOSTILE + " http://a/\"onclick='x'"),),
    )
    plain, text = read(page(plan)), page(hostile)
    # The tags are those of the plan without it, beside the names of another way that was tried.
    assert set(read(text).tags) <= set(plain.tags)
    assert read(text).tags["svg"] == plain.tags["svg"]
    assert not re.search(r"<script|<svg onload", text)
    assert not any(name.startswith("on") for _, name, _ in read(text).attributes)


def test_the_verdict_is_one_sentence_or_two() -> None:
    assert verdict(made("scores")) == (
        "Width 0.75 of eurosat-rgb fits Raspberry Pi 4 Model B, 4 GB",
        "Width multiplier 0.75 is the widest that meets every budget, with 76% of the full encoder's FLOP. The next "
        "wider aligned one, 1, is refused: latency +15 %; 2 unaligned ones fit, but may run slower.",
    )
    title, lead = verdict(made("nothing-fits"))
    assert title == "No width of eurosat-rgb fits Raspberry Pi 4 Model B, 4 GB"
    assert lead.startswith("The nearest, width multiplier 0.03125 (head_dim 1), misses latency up to 6.37 ms > 1")
    assert verdict(made("whole"))[1] == "The full encoder meets every budget; nothing was refused."


def test_an_unverified_plan_says_so_first() -> None:
    plan = replace(made("scores"), unverified="its int8 was never measured (a test)")
    assert verdict(plan)[1].endswith(" Unverified: measure before you rely on it.")
    assert "its int8 was never measured (a test)" in page(plan)


def test_figures_of_the_card_are_listed_with_their_source() -> None:
    board = take_device("jetson-orin")
    text = page(made("whole"), board)
    assert "runtime tensorrt: efficiency.fp16.gemm" in text
    assert "runtime onnxruntime-cpu" not in text
    assert "unit cpu" not in text
    assert "Figures of device card" not in page(made("whole"), take_device("rpi4"))


def test_what_was_measured_is_marked() -> None:
    board = take_device("rpi4")
    embedded = take_profile("eurosat-rgb")
    gflop = {s.estimate.width_multiplier: s.estimate.gflop for s in planned("rpi4").steps}
    rows = tuple(
        Measurement(
            "eurosat-rgb", width, gflop[width], "onnxruntime-cpu", "fp32", "default", 1, 1, ms, 1.1 * ms, "a test"
        )
        for width, ms in ((1.0, 12.0), (0.5, 8.0))
    )
    plan = make_plan(embedded, replace(board, measurement=rows), take_target("onnx"), Ask(latency_ms=10))
    text = page(plan, replace(board, measurement=rows))
    latency, memory = re.findall(r'<svg viewBox="0 0 \d{3} \d{3}".*?</svg>', text)
    assert len(re.findall(r'<g class="\w+ measured">', latency)) == 2
    assert "measured" not in re.sub(r"score not measured", "", memory)
    assert text.count("†") == 3  # in both rows, and what it means
    assert "measured ms a tile: width 0.5, batch 1, 1 at a time" in text
    assert "†" not in page(made("scores"), board)


def test_another_page_is_replaced_and_any_other_file_kept(tmp_path: Path) -> None:
    plan, path = made("scores"), tmp_path / "plan.html"
    write_page(plan, path)
    write_page(plan, path)
    assert [one.name for one in tmp_path.iterdir()] == ["plan.html"]
    path.write_text("<!DOCTYPE html><title>my homepage</title>")
    with pytest.raises(InputError, match=r"found a file that is no page of a plan, kept it; .*--html or --overwrite"):
        write_page(plan, path)
    assert "my homepage" in path.read_text()
    write_page(plan, path, overwrite=True)
    assert "my homepage" not in path.read_text()
    with pytest.raises(InputError, match="found a folder"):
        write_page(plan, tmp_path)


def test_the_command_writes_both_or_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["plan", "--device", "rpi4", "--latency-ms", "20", "--html", "plan.html"]
    assert main(command) == 0
    assert capsys.readouterr().out.endswith("wrote plan.json and plan.html\n")
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["device"] == "raspberry-pi-4b-4gb"
    (tmp_path / "plan.html").write_text("mine")
    (tmp_path / "plan.json").unlink()
    assert main(command) == 1
    assert not (tmp_path / "plan.json").exists()
    assert (tmp_path / "plan.html").read_text() == "mine"


def test_a_page_shows_why_nothing_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "--device", "rpi4", "--latency-ms", "1", "--html", "plan.html"]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "<h1>No width of eurosat-rgb fits" in (tmp_path / "plan.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["plan.html"]
