"""Figures of device cards from published latencies, for benchmarks/latency.py, and how they get into the cards."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from latency_fit import GAP, Fit, band_of, conformal, fit, judged
from latency_rows import OWN, Row

from edgeslim.shelf import read_toml

DEVICES = Path(__file__).parents[1] / "devices"
BASIS = "benchmarks/results/latency.md"


def card_figures(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Figures of each runtime of a device card that latency.toml names, with their sources."""
    return [
        _card(card, device, chip, tuple(rows))
        for card in read_toml(OWN)["card"]
        for device, chip in card["devices"].items()
    ]


def _card(card: dict[str, Any], device: str, chip: str, rows: tuple[Row, ...]) -> dict[str, Any]:
    facts = {key: card[key] for key in ("core", "precision")} | {"runtime": card["published"], "chip": chip}
    facts["unit"] = "gpu" if "GPU" in card["core"] else "cpu"
    like = replace(rows[0], kind="ViT", **facts)
    products, convolution = fit(like, rows), fit(replace(like, kind="CNN"), rows)
    band = math.ceil(band_of(products, "ViT", rows) * 100) / 100
    measured = products.level != GAP and any(row.chip == chip for row in products.rows)
    share, conv = round(products.efficiency, 2), round(min(convolution.efficiency, 1.0), 2)
    return {
        "device": device,
        "chip": chip,
        "published": card["published"],
        "runtime": card["runtime"],
        "precision": card["precision"],
        "basis": "measured" if measured else "related",
        "evidence": products.level,
        "ends": {kind: [round(share, 3) for share in ends] for kind, ends in products.ends.items()},
        "rows": len(products.rows),
        "gemm": {"value": share, "source": _products_source(like, products)},
        "attention": {"value": share, "source": "as gemm: latencies of whole networks do not tell them apart"},
        "conv": {"value": conv, "source": f"fitted to {_rows_text(convolution, 'CNN')}; {BASIS}"},
        "error_band": {"value": band, "source": _band_source(like, products, rows)},
    }


def _rows_text(found: Fit, kind: str) -> str:
    cores = ", ".join(dict.fromkeys(row.core for row in found.rows))
    first, chips = found.rows[0], dict.fromkeys(row.chip for row in found.rows)
    count = len(found.rows)
    return (
        f"{count} published {kind} row{'s' * (count != 1)} of {first.runtime} in {first.precision} "
        f"({cores}: {', '.join(chips)})"
    )


def _ends(found: Fit) -> tuple[str, str]:
    convolutions = [row for row in found.rows if row.kind == "CNN"]
    cores = list(dict.fromkeys(row.core for row in convolutions))
    shares = [f"{share:.2f}{'' if index else ' of peak'}" for index, share in enumerate(found.ends["CNN"])]
    if len(cores) > 1:
        shares = [f"{share} on a {core}" for share, core in zip(shares, cores, strict=True)]
    vits = [row for row in found.rows if row.kind == "ViT"]
    elsewhere = list(dict.fromkeys(f"{row.runtime} in {row.precision}" for row in vits))
    if len(elsewhere) > 2:
        elsewhere = list(dict.fromkeys(row.runtime for row in vits))
    return ", ".join(shares), f"{found.ends['ViT'][0]:.2f}, {' and '.join(elsewhere)}"


def _products_source(like: Row, found: Fit) -> str:
    if found.level != GAP:
        return f"fitted to {_rows_text(found, 'ViT')}; {BASIS}"
    cnn, vit = _ends(found)
    middle = f"the geometric middle between CNN ({cnn}) and ViT ({vit})"
    return f"edgeslim's assumption: {middle}; {BASIS}"


def _band_source(like: Row, found: Fit, rows: tuple[Row, ...]) -> str:
    errors = judged("class" if found.level == GAP else found.level, "ViT", rows)
    if found.level == GAP:
        cnn, vit = _ends(found)
        return (
            f"no ViT was published for {like.runtime} on this board: the band covers the gap between CNN ({cnn}) and "
            f"ViT ({vit}), times the {math.exp(conformal(errors)):.2f} that devices differ by; {BASIS}"
        )
    where = "" if any(row.chip == like.chip for row in found.rows) else "no ViT was published on this board; "
    return f"{where}judged on {len(errors)} published ViT rows, each by other devices than its own; {BASIS}"


_BLOCKS = re.compile(r"^(?=\[\[)", re.MULTILINE)


def write_card(figures: dict[str, Any], folder: Path = DEVICES) -> None:
    """Put figures in the place of those that a card has for a runtime."""
    path = folder / f"{figures['device']}.toml"
    blocks = _BLOCKS.split(path.read_text(encoding="utf-8"))
    index = next(i for i, b in enumerate(blocks) if b.startswith(f'[[runtime]]\nid = "{figures["runtime"]}"'))
    head, table, body = blocks[index].partition(f"[runtime.efficiency.{figures['precision']}]\n")
    head = _put(head, "basis", f'"{figures["basis"]}"')
    head = _put(head, "error_band", _figure(figures["error_band"]))
    for key in ("gemm", "attention", "conv"):
        body = _put(body, key, _figure(figures[key]))
    blocks[index] = head + table + body
    path.write_text("".join(blocks), encoding="utf-8")


def _figure(figure: dict[str, Any]) -> str:
    return f"{{ value = {figure['value']}, source = {json.dumps(figure['source'], ensure_ascii=False)} }}"


def _put(text: str, key: str, value: str) -> str:
    changed, count = re.subn(rf"^{key} = .*$", lambda _: f"{key} = {value}", text, count=1, flags=re.MULTILINE)
    if not count:
        raise SystemExit(f"latency.py: found no {key} to replace, expected one")
    return changed
