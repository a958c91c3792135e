"""Figures of the device cards are those that published latencies give, and these are computed as committed."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeslim.shelf import read_toml
from tests.pages import PAGES

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "latency.py"
COMMITTED = ROOT / "benchmarks" / "results" / "latency"
FOUND: dict[str, Any] = json.loads(COMMITTED.with_suffix(".json").read_text(encoding="utf-8"))
CARDS = {(card["device"], card["runtime"]): card for card in FOUND["cards"]}


def figures_of(path: Path) -> dict[str, dict[str, Any]]:
    """Runtime -> what a device card holds of it."""
    return {runtime["id"]: runtime for runtime in read_toml(path).get("runtime", ())}


@pytest.mark.parametrize(("device", "runtime"), CARDS)
def test_cards_hold_what_was_fitted(device: str, runtime: str) -> None:
    held, card = figures_of(ROOT / "devices" / f"{device}.toml")[runtime], CARDS[device, runtime]
    held |= held["efficiency"][card["precision"]]
    fitted = ("gemm", "attention", "conv", "basis", "error_band")
    assert {name: held[name] for name in fitted} == {name: card[name] for name in fitted}


@pytest.mark.parametrize(("device", "runtime"), CARDS)
def test_what_was_typed_into_a_card_is_put_right(
    device: str, runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    write_card = importlib.import_module("latency_cards").write_card
    text = (ROOT / "devices" / f"{device}.toml").read_text(encoding="utf-8")
    typed, card = tmp_path / f"{device}.toml", CARDS[device, runtime]
    for name in ("gemm", "conv", "error_band"):
        figure = f"{name} = {{ value = {card[name]['value']}, source = "
        assert figure in text
        typed.write_text(text.replace(figure, f"{name} = {{ value = 0.99, source = "), encoding="utf-8")
        for one in FOUND["cards"]:
            if one["device"] == device:
                write_card(one, tmp_path)
        assert typed.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("path", sorted((ROOT / "devices").glob("*.toml")), ids=lambda path: path.stem)
def test_no_other_card_names_the_benchmark(path: Path) -> None:
    for name, runtime in figures_of(path).items():
        figures = {key: runtime[key] for key in ("efficiency", "error_band")}
        assert ("results/latency.md" in json.dumps(figures)) == ((path.stem, name) in CARDS)


@pytest.mark.parametrize(("device", "runtime"), CARDS)
def test_a_board_without_a_vit_row_says_so_and_covers_the_gap(device: str, runtime: str) -> None:
    card, cases = CARDS[device, runtime], FOUND["sections"]["vit"]["cases"]
    own = [case for case in cases if (case["runtime"], case["chip"]) == (card["published"], card["chip"])]
    assert (card["basis"] == "measured") == bool(own)
    assert ("no ViT was published" in card["error_band"]["source"]) == (not own)
    if card["evidence"] == "gap":
        middle, band = card["gemm"]["value"], 1 + card["error_band"]["value"]
        for ends in card["ends"].values():
            for share in ends:
                assert middle / band <= share <= middle * band


@pytest.mark.parametrize("section", ["vit", "cnn"])
def test_nine_in_ten_published_rows_lie_inside_the_band(section: str) -> None:
    found = FOUND["sections"][section]
    inside = [case["inside"] for case in found["cases"]]
    assert len(inside) == found["rows"]
    assert sum(inside) / len(inside) >= 0.9


def test_the_readme_says_what_was_found() -> None:
    text = " ".join(PAGES["docs/planning.md"].split())
    vit, cnn, gap = (FOUND["sections"][key] for key in ("vit", "cnn", "vit_other_runtimes"))
    chips = {case["chip"] for section in (vit, cnn) for case in section["cases"]}
    for said in (
        f"Held against {vit['rows'] + cnn['rows']} published latencies of {len(chips)} chips",
        f"{100 * vit['median_error']:.0f} % (median of {vit['rows']} transformers, op by op)",
        f"{100 * cnn['median_error']:.0f} % ({cnn['rows']} CNNs, by their FLOP alone)",
        f"{100 * vit['inside']:.0f} % and {100 * cnn['inside']:.0f} % of them lie inside the error band",
        f"held for {100 * gap['inside']:.0f} % of them",
    ):
        assert said in text


def test_the_committed_figures_are_what_the_script_computes(tmp_path: Path) -> None:
    shared = ROOT.parent / "shared" / "evidence" / "published_latencies.csv"
    if not shared.is_file():
        pytest.skip("no shared/evidence beside the checkout: the held latencies are not computed again")
    out = tmp_path / "latency"
    subprocess.run([sys.executable, str(SCRIPT), "-o", str(out)], check=True, timeout=300)
    for ending in (".json", ".md"):
        assert out.with_suffix(ending).read_text(encoding="utf-8") == COMMITTED.with_suffix(ending).read_text(
            encoding="utf-8"
        )
