"""A proof that stops early gives the verdict of one that runs to its end."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.errors import ParityError
from edgeslim.ground.exporting.proof import Answers, Reference, least_sure_first, prove, run_against, run_all
from edgeslim.ground.exporting.tally import Tally
from edgeslim.ground.golden import GoldenTiles
from edgeslim.parity import CEILINGS, Ceiling, compare

CLASSES = 4


@dataclass
class Replayed:
    """A runtime whose answers to tiles, each of which holds its own number, are given; it notes what it was asked."""

    logits: np.ndarray
    version: str = "replayed 1"
    asked: list[list[int]] = field(default_factory=list)

    def outputs(self, tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        numbers = tiles[:, 0, 0, 0].astype(int)
        self.asked.append(numbers.tolist())
        # As in dynamic int8, an answer depends on what else is in its batch.
        logits = self.logits[numbers] + np.float32(1e-3) * numbers.mean(dtype=np.float32)
        return logits.astype(np.float32), np.ones((len(tiles), 2), np.float32)

    def run(self, tiles: np.ndarray) -> np.ndarray:
        return self.outputs(tiles)[0]


def answers(logits: np.ndarray, labels: np.ndarray | None = None) -> Answers:
    tiles = np.arange(len(logits), dtype=np.float32)[:, None, None, None]
    return Answers(GoldenTiles(tiles, False, "numbers", labels), logits, np.ones((len(logits), 2), np.float32))


@st.composite
def proofs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, Ceiling]:
    """Logits found and expected of up to 60 tiles, some of them turned or not finite, and a ceiling."""
    count = draw(st.integers(1, 60))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    expected = random.normal(size=(count, CLASSES)).astype(np.float32)
    found = expected + random.normal(size=expected.shape).astype(np.float32) * np.float32(
        draw(st.sampled_from([0, 1e-6, 1e-3, 0.1]))
    )
    for tile in draw(st.sets(st.integers(0, count - 1), max_size=3)):
        found[tile] = found[tile, ::-1]
    if draw(st.integers(0, 9)) == 0:
        found[draw(st.integers(0, count - 1)), 0] = draw(st.sampled_from([np.nan, np.inf]))
    ceiling = draw(st.sampled_from([*CEILINGS.values(), Ceiling(None, 1.0), Ceiling(0.05, 0.95), Ceiling(None, 0.0)]))
    return found, expected, ceiling


@given(proofs(), st.integers(1, 7), st.randoms(use_true_random=False))
def test_what_is_refused_early_is_what_all_tiles_refuse(
    case: tuple[np.ndarray, np.ndarray, Ceiling], step: int, random: object
) -> None:
    found, expected, ceiling = case
    order = np.arange(len(found))
    random.shuffle(order)  # type: ignore[attr-defined]
    tally = Tally(ceiling, len(found), float(np.ptp(expected)))
    verdicts = []
    for start in range(0, len(order), step):
        part = order[start : start + step]
        tally.add(found[part], expected[part])
        verdicts.append(tally.missed() is not None)
    assert verdicts[-1] == (compare(found, expected).missed(ceiling) is not None)
    assert verdicts == sorted(verdicts)  # once refused, refused


@given(proofs(), st.integers(1, 9))
def test_a_proof_that_may_stop_gives_the_figures_of_one_that_does_not(
    case: tuple[np.ndarray, np.ndarray, Ceiling], batch: int
) -> None:
    found, expected, ceiling = case
    whole = run_all(Replayed(found), answers(expected).tiles.tiles, batch)[0]
    missed = compare(whole, expected).missed(ceiling)
    stopping = Replayed(found)
    try:
        logits, _ = run_against(stopping, answers(expected), batch, ceiling, "it")
    except ParityError:
        assert missed is not None
    else:
        assert missed is None
        assert np.array_equal(logits, whole)
        ran = [tile for asked in stopping.asked for tile in asked]
        assert sorted(ran) == list(range(len(found)))


def test_a_refusal_says_on_how_many_tiles_it_stands() -> None:
    random = np.random.default_rng(0)
    expected = random.normal(size=(1000, CLASSES)).astype(np.float32)
    found = expected.copy()
    sure = np.argsort(np.ptp(np.sort(expected, axis=1)[:, -2:], axis=1))
    for tile in sure[3:143:13]:  # 11 of the 143 that torch is least sure of
        top = np.argsort(expected[tile])[-2:]
        found[tile, top] = expected[tile, top[::-1]]
    runtime = Replayed(found)
    with pytest.raises(ParityError) as refused:
        run_against(runtime, answers(expected), 1, CEILINGS["int8-dynamic"], "onnx-int8-dynamic")
    assert len(runtime.asked) == 134  # the 11th is at 3 + 13 * 10
    said = "onnx-int8-dynamic at batch 1: 11 of the 134 least sure tiles have another class ("
    assert str(refused.value).startswith(said)
    assert str(refused.value).endswith("), at most 10 of 1000 may; do not fly this artifact")
    found[sure[120:]] = expected[sure[120:]]  # ten are left
    run_against(Replayed(found), answers(expected), 1, CEILINGS["int8-dynamic"], "onnx-int8-dynamic")


def test_a_difference_beyond_the_ceiling_ends_it_at_once() -> None:
    expected = np.eye(CLASSES, dtype=np.float32)[np.arange(40) % CLASSES]
    tally = Tally(CEILINGS["fp32"], 40, 1.0)
    tally.add(expected[:3], expected[:3])
    assert tally.missed() is None
    tally.add(expected[3:5] + np.float32(0.01), expected[3:5])
    assert tally.missed() == (
        "logits differ by up to 0.01, 0.01 of their range, over the 5 least sure of 40 tiles, "
        "expected at most 0.0001 of it"
    )
    tally.add(expected[5:] * np.float32(np.nan), expected[5:])
    assert tally.missed() == "logits that are not finite, in 40 tiles"


def test_batches_stay_together_and_the_least_sure_one_is_first() -> None:
    logits = np.array([[0, 9], [0, 8], [5, 4], [0, 7], [0, 6.0]], np.float32)
    assert least_sure_first(logits, 1) == [2, 4, 3, 1, 0]
    assert least_sure_first(logits, 2) == [2, 4, 0]
    assert least_sure_first(logits[:, :1], 2) == [0, 2, 4]  # one class: none is surer than another


def test_what_fails_soonest_is_asked_first() -> None:
    expected = np.random.default_rng(1).normal(size=(50, CLASSES)).astype(np.float32)
    reference = Reference(answers(expected, expected.argmax(1)), answers(expected[:2]), answers(expected[:3]))
    runtime = Replayed(expected - np.float32(1e-3))
    seen: list[int] = []
    certificate = prove(
        runtime, reference, (8, 1), Ceiling(None, 0.9), "it", after_first=lambda: seen.append(len(runtime.asked))
    )
    sizes = [len(asked) for asked in runtime.asked]
    assert sizes[:53] == [1] * 53  # the hostile tiles and the smallest batch size
    assert sorted(sizes[53:]) == [2, *[8] * 6]
    assert seen == [53]
    assert {batch: parity.tiles for batch, parity in certificate.batches.items()} == {"1": 50, "8": 50}
    wild = Replayed(np.full_like(expected, np.nan))
    with pytest.raises(ParityError, match="it on hostile tiles: logits that are not finite"):
        prove(wild, reference, (1,), Ceiling(None, 0.9), "it")
    assert len(wild.asked) == 3
