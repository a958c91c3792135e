"""What `head` and its table print, by a golden file."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from edgeslim.errors import InputError
from edgeslim.head_card import HeadCard
from edgeslim.onboard.scores import class_scores
from edgeslim.profile import load_profile
from edgeslim.report.confusion import print_classes
from edgeslim.report.head import print_head
from edgeslim.shelf import shelf_folder

GOLDEN = Path(__file__).parents[1] / "golden" / "head.txt"


def card() -> HeadCard:
    profile = load_profile(shelf_folder("profiles") / "eurosat-rgb.toml")
    assert profile.radiometry is not None
    return HeadCard(
        encoder="eurosat-rgb",
        checkpoint_sha256="0" * 64,
        architecture=profile.architecture,
        width_multiplier=0.25,
        kind="logistic",
        multi_label=False,
        classes=profile.classes[:3],
        land_share_source=None,
        bands=profile.bands,
        gsd_m=10.0,
        radiometry=profile.radiometry,
        strength=0.001,
        temperature=1.234,
        dataset="mine",
        split="spatial blocks of 6,400 m, 4 of 21 held out, seed 0",
        fitted_tiles=320,
        scored_tiles=80,
        metric="accuracy",
        score=0.875,
        interval=(0.8123, 0.9321),
        interval_basis="bootstrap over 4 blocks",
        calibration_error=0.0312,
        unknown_share=0.05,
        rejected_share=0.0625,
    )


def test_what_is_printed_is_the_golden_text() -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, highlight=False)
    counts = np.array([[30, 2, 0], [5, 20, 3], [0, 0, 20]])
    labels = np.repeat(np.arange(3), counts.sum(1))
    answers = np.concatenate([np.repeat(np.arange(3), row) for row in counts])
    names = tuple(label.name for label in card().classes)
    flags = (np.arange(3) == values[:, None] for values in (labels, answers))
    print_classes(class_scores(names, *flags), names, counts, console)
    print_head(card(), console)
    print_head(replace(card(), kind="knn", strength=9.0, unknown_share=None, rejected_share=None), console)
    print_head(replace(card(), multi_label=True, metric="micro F1", interval_basis="bootstrap over 80 tiles"), console)
    text = "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
    assert text == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "change", [{"kind": "forest"}, {"classes": card().classes[:1]}, {"temperature": 0.0}, {"width_multiplier": 2.0}]
)
def test_a_card_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        replace(card(), **change)  # type: ignore[arg-type]
