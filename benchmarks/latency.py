"""How far off is the estimated latency, held against published ones of devices that it has not seen?

    python benchmarks/latency.py                  # results/latency.md and .json
    python benchmarks/latency.py --fit            # figures for device cards, as a table
    python benchmarks/latency.py --write-cards    # ... into devices/*.toml

Rows are those of ../shared/evidence/published_latencies.csv and of latency.toml. Each is computed as the planner does
(edgeslim.planning.durations.roofline), at the efficiency that the rows of all other devices give; the rule stands at
the head of latency_fit.py. Transformers are held op by op; CNNs, of which only the total was published, by one term:
FLOP / (peak x efficiency) and a call's overhead. Nothing is timed: the same rows give the same results everywhere.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from latency_cards import card_figures, write_card  # noqa: E402
from latency_fit import Held, by_silicon, hold  # noqa: E402
from latency_rows import SHARED, Row, read_rows  # noqa: E402

RESULT = Path(__file__).parent / "results" / "latency"


@dataclass(frozen=True)
class Section:
    key: str
    title: str
    text: str
    held: list[Held]


def sections(rows: Sequence[Row]) -> list[Section]:
    transformers = [row for row in rows if row.kind == "ViT"]
    orin = [row for row in transformers if row.runtime == "TensorRT"]
    return [
        Section(
            "vit",
            "Transformers, op by op",
            "A board's power modes and boards of one chip count as one device.",
            [hold(row, rows) for row in transformers],
        ),
        Section(
            "vit_one_silicon",
            "Transformers on TensorRT, all Orin modules counted as one device",
            "Orin Nano, NX and AGX are one silicon, of which more or less is switched on. Counted as one device no row "
            "of TensorRT is left, and the gap is bridged: the band is wide.",
            [hold(row, rows, by_silicon) for row in orin],
        ),
        Section(
            "vit_other_runtimes",
            "Transformers, by other runtimes only",
            "As on a board for whose runtime no transformer was published at all, which is so for ONNX Runtime on Arm. "
            "Harder than there, where the ViT end of the gap is of the board's own core: here only ncnn and ExecuTorch "
            "share one, and for the others it is another processor's. Four runtimes are too few to promise 90 %.",
            [hold(row, rows, gap=True) for row in transformers],
        ),
        Section(
            "cnn",
            "CNNs, by one term",
            "For the efficiency of convolution only; no transformer's figure rests on them, but across a gap.",
            [hold(row, rows) for row in rows if row.kind == "CNN"],
        ),
    ]


def summary(held: Iterable[Held]) -> dict[str, float]:
    found = list(held)
    errors = sorted(abs(h.error) for h in found)
    devices = {h.row.chip: [other.inside for other in found if other.row.chip == h.row.chip] for h in found}
    return {
        "rows": len(found),
        "devices": len(devices),
        "median_error": statistics.median(errors),
        "p90_error": errors[math.ceil(0.9 * len(errors)) - 1],
        "inside": sum(h.inside for h in found) / len(found),
        "inside_by_device": statistics.mean(sum(inside) / len(inside) for inside in devices.values()),
    }


def report(found: list[Section], cards: list[dict[str, Any]], rows: Sequence[Row]) -> str:
    lines = [
        "# Latency: the estimate held against published ones, its device left out",
        "",
        "By `python benchmarks/latency.py`, from rows of ../shared/evidence/published_latencies.csv and of "
        "benchmarks/latency.toml; nothing was timed. The rule that gives efficiency and band stands at the head of "
        "benchmarks/latency_fit.py.",
        "",
        "| | rows | devices | median error | 90th percentile | inside the band | each device weighing the same |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    both = [h for section in found if section.key in ("vit", "cnn") for h in section.held]
    for title, held in [*((s.title, s.held) for s in found), ("Transformers op by op and CNNs by one term", both)]:
        s = summary(held)
        lines.append(
            f"| {title} | {s['rows']} | {s['devices']} | {s['median_error']:.0%} | {s['p90_error']:.0%} | "
            f"{s['inside']:.0%} | {s['inside_by_device']:.0%} |"
        )
    outside = [h for h in both if not h.inside]
    listed = [
        f"{h.row.model} on {h.row.device} ({h.row.runtime} {h.row.precision}, {h.error:+.0%})"
        for h in sorted(outside, key=lambda h: -h.factor)
    ]
    lines += ["", f"Outside the band, of {len(both)}: {'; '.join(listed)}."]
    for section in found:
        lines += ["", f"## {section.title}", "", section.text, "", *_groups(section.held), "", *_rows(section.held)]
    lines += ["", "## Figures of device cards", "", *_fit_table(cards), "", *_limits()]
    lines += ["", "## Sources", "", *(f"- {source}" for source in dict.fromkeys(row.source for row in rows))]
    return "\n".join(lines) + "\n"


def _groups(held: list[Held]) -> list[str]:
    lines = [
        "| runtime, precision, core | rows | devices | median error | largest | inside |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    groups: dict[str, list[Held]] = {}
    for h in held:
        groups.setdefault(f"{h.row.runtime}, {h.row.precision}, {h.row.core}", []).append(h)
    for name, own in groups.items():
        s = summary(own)
        largest = max((h.error for h in own), key=abs)
        lines.append(
            f"| {name} | {s['rows']} | {s['devices']} | {s['median_error']:.0%} | {largest:+.0%} | {s['inside']:.0%} |"
        )
    return lines


def _rows(held: list[Held]) -> list[str]:
    lines = [
        "| device | network | runtime | GFLOP | published ms | estimate ms | error | band | efficiency | evidence | "
        "bound |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for h in held:
        error = f"{h.error:+.0%}" if h.inside else f"**{h.error:+.0%}**"
        lines.append(
            f"| {h.row.device} | {h.row.model} | {h.row.runtime} {h.row.precision} | {h.row.gflop:.3g} | "
            f"{h.row.measured_ms:.4g} | {h.estimate_ms:.4g} | {error} | x {1 + h.band:.2f} | "
            f"{h.fit.efficiency:.2f} | {h.fit.level} | {h.bound} |"
        )
    return [*lines, "", "Bold: outside the band."]


def _fit_table(cards: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| card | runtime | precision | basis | evidence | rows | gemm, attention | conv | band |",
        "| --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for card in cards:
        lines.append(
            f"| {card['device']} | {card['runtime']} | {card['precision']} | {card['basis']} | {card['evidence']} | "
            f"{card['rows']} | {card['gemm']['value']:.2f} | {card['conv']['value']:.2f} | "
            f"x {1 + card['error_band']['value']:.2f} |"
        )
    return lines


def _limits() -> list[str]:
    return [
        "What a card's share of the peak rests on: `class` are rows of its runtime, precision and core, `gap` the "
        "middle between CNNs of its runtime and transformers on others. x86-64-host is not among them: that machine "
        "is not known, its figures are edgeslim's own measurements.",
        "",
        "Depthwise convolution has no class of its own: none of these rows tells what it reaches, as of a ConvNeXt "
        "none was published for these runtimes on these boards. It counts as convolution, which is too fast for it.",
        "",
        "NVIDIA published images a second; 1000 / that is taken for the latency, batch 1 and fp16 are assumed, as is "
        "the mode without caps of the AGX Orin. Peaks are nominal: cores x clock x FLOP a cycle. Overheads, and the "
        "share of the bandwidth that is sustained, are the cards' own assumptions.",
    ]


def to_json(found: list[Section], cards: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures to six digits, as the last ones are the processor's own."""

    def digits(value: float) -> float:
        return value if isinstance(value, int) else float(f"{value:.6g}")

    return {
        "command": "python benchmarks/latency.py",
        "sections": {
            s.key: {
                "title": s.title,
                **{key: digits(value) for key, value in summary(s.held).items()},
                "cases": [
                    {
                        "device": h.row.device,
                        "chip": h.row.chip,
                        "network": h.row.model,
                        "runtime": h.row.runtime,
                        "precision": h.row.precision,
                        "core": h.row.core,
                        "gflop": digits(h.row.gflop),
                        "published_ms": h.row.measured_ms,
                        "estimate_ms": digits(h.estimate_ms),
                        "error": digits(h.error),
                        "band": digits(h.band),
                        "inside": h.inside,
                        "efficiency": digits(h.fit.efficiency),
                        "evidence": h.fit.level,
                        "bound": h.bound,
                        "source": h.row.source,
                    }
                    for h in s.held
                ],
            }
            for s in found
        },
        "cards": cards,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="print figures for device cards and stop")
    parser.add_argument("--write-cards", action="store_true", help="put them into devices/*.toml and stop")
    parser.add_argument("-o", "--output", type=Path, default=RESULT, help="results, without ending")
    asked = parser.parse_args()
    if not SHARED.is_file():
        sys.exit(f"latency.py: found no {SHARED}, expected published latencies beside the checkout: nothing is held")
    rows = read_rows()
    cards = card_figures(rows)
    if asked.write_cards:
        for card in cards:
            write_card(card)
        return
    if asked.fit:
        print("\n".join(_fit_table(cards)))
        return
    found = sections(rows)
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(to_json(found, cards), indent=2, ensure_ascii=False) + "\n"
    asked.output.with_suffix(".json").write_text(text, encoding="utf-8")
    asked.output.with_suffix(".md").write_text(report(found, cards, rows), encoding="utf-8")


if __name__ == "__main__":
    main()
