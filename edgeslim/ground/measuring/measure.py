"""Measure: what an encoder keeps at each width and depth on a person's own labelled tiles, beside the pixels alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t
from sklearn.metrics import average_precision_score

from edgeslim import cost
from edgeslim.errors import InputError
from edgeslim.ground.checkpoints.checkpoint import Checkpoint
from edgeslim.ground.heads.fitting import F64, Fold, fit_linear, nearest_five, neighbours_say
from edgeslim.ground.heads.head import Asked
from edgeslim.ground.heads.split import Split, folds_of, require_enough, split_tiles
from edgeslim.ground.measuring.features import Seen, look_at
from edgeslim.ground.measuring.redundancy import standardised
from edgeslim.ground.profile_toml import profile_toml
from edgeslim.onboard.labels import Labelled
from edgeslim.planning.plan import METHODS
from edgeslim.profile import Profile
from edgeslim.retention import Choice, Kept, Mean, Retention, with_fronts
from edgeslim.score import Score

F32 = NDArray[np.float32]
PROBES = ("k-NN", "linear")
TEN_POINTS = 0.1
"""By which an encoder must beat the pixels for its share above them to mean much."""


@dataclass(frozen=True, slots=True)
class _Probed:
    """Scores of one set of features, (seeds,) each."""

    scores: dict[str, F64]
    checked: dict[str, F64]


def measure(
    profile: Profile,
    checkpoint: Checkpoint,
    tiles: Labelled,
    widths: Sequence[float],
    seeds: int,
    asked: Asked,
    say: Callable[[str], None],
) -> Retention:
    """Score `widths` (1.0 is added) by k-NN and a linear probe, on `seeds` splits of `tiles`.

    Behind every block that may be the last. Heads are fitted anew for each. Raises InputError for tiles, classes or
    coordinates that cannot do.
    """
    arch = profile.architecture
    widths = tuple(sorted({*widths, 1.0}))
    seen = look_at(profile, checkpoint, tiles, widths, asked, say)
    notes = list(seen.notes)
    if not seen.files:
        raise InputError(f"--tiles: none of {len(tiles.files)} can be used, expected labelled tiles")
    has = seen.has(tiles.classes)
    require_enough(tiles.classes, has)
    multi = bool((has.sum(1) > 1).any())
    splits = [_split(seen, tiles, has, asked, arch.tile_px, asked.seed + number) for number in range(seeds)]
    judge = _Judge(has, multi, [(split, list(folds_of(split, has, asked.seed + n))) for n, split in enumerate(splits)])
    pixels = judge.probe(standardised(seen.pixels))
    found: dict[tuple[float, int], _Probed] = {}
    for width in widths:
        depths = range(arch.fewest_blocks, arch.depth + 1)
        say(f"probing width {width:.4g} behind {len(depths)} block{'s' if len(depths) > 1 else ''}, {seeds} seeds")
        for blocks in depths:
            found[width, blocks] = judge.probe(seen.features[width, blocks])
    full = found[1.0, arch.depth]
    rows = []
    for (width, blocks), probed in found.items():
        gflop = cost.flop(arch.at(width, blocks)) / 1e9
        rows += [_kept(width, blocks, gflop, probe, probed, full, pixels) for probe in PROBES]
    at_full_depth = {cut: found[cut] for cut in found if cut[1] == arch.depth}
    by_flop = {cut: found[cut] for cut in sorted(found, key=lambda cut: (cost.flop(arch.at(*cut)), cut))}
    for probe in PROBES:
        gap = float((full.scores[probe] - pixels.scores[probe]).mean())
        if gap < TEN_POINTS:
            notes.append(
                f"{probe}: the full encoder is {abs(100 * gap):.1f} points {'above' if gap >= 0 else 'below'} "
                "statistics of the pixels: on these tiles it has little of its own to keep"
            )
    return Retention(
        encoder=profile.id,
        dataset=tiles.source,
        tiles=len(seen.files),
        left_out=seen.left_out,
        method=METHODS[0],
        metric="mAP" if multi else "accuracy",
        split=splits[0].how,
        seeds=tuple(asked.seed + number for number in range(seeds)),
        pixels=tuple(_kept(0.0, 0, 0.0, probe, pixels, None, None) for probe in PROBES),
        kept=with_fronts(rows),
        choices=tuple(replace(_choice(probe, at_full_depth), blocks=()) for probe in PROBES),
        warnings=tuple(notes),
        cut_choices=tuple(_choice(probe, by_flop) for probe in PROBES),
    )


def scores_for_card(record: Retention, command: str) -> tuple[Score, ...]:
    """A score for each width, depth and probe, as an encoder card keeps them: of each probe those at full depth first.

    `edgeslim plan` cuts depth where such a score is, and nowhere else.
    """
    found = []
    for probe in PROBES:
        dataset = f"{record.dataset}, {record.tiles} tiles, {len(record.seeds)} splits, {probe}"
        shallower = [one for one in record.kept if one.probe == probe and one.blocks < record.deepest]
        for one in record.at_full_depth(probe) + shallower:
            value = round(one.score.value, 4)
            interval = min(round(one.score.low, 4), value), max(round(one.score.high, 4), value)
            depth = None if one.blocks == record.deepest else one.blocks
            found.append(Score(one.width_multiplier, record.metric, dataset, value, command, probe, interval, depth))
    return tuple(found)


def _split(seen: Seen, tiles: Labelled, has: NDArray[np.bool_], asked: Asked, tile_px: int, seed: int) -> Split:
    names = [file.name for file in seen.files]
    side_m = None if seen.gsd_m is None else seen.gsd_m * tile_px
    return split_tiles(names, tiles.classes, has, seen.places, side_m, asked.block_m, seed, by_name=False)


@dataclass(frozen=True, slots=True)
class _Judge:
    """Fits probes anew on each split's training part, and asks of the rest."""

    has: NDArray[np.bool_]
    multi: bool
    splits: list[tuple[Split, list[Fold]]]

    def probe(self, features: F32) -> _Probed:
        scores: dict[str, list[float]] = {probe: [] for probe in PROBES}
        checked: dict[str, list[float]] = {probe: [] for probe in PROBES}
        for split, folds in self.splits:
            fit, test = features[split.train], features[split.test]
            known, truth = self.has[split.train], self.has[split.test]
            scores["k-NN"].append(self._score(truth, neighbours_say(nearest_five(fit, known), test)))
            inside = [(c, neighbours_say(nearest_five(fit[f], known[f]), fit[c])) for f, c in folds]
            checked["k-NN"].append(float(np.mean([self._score(known[c], said) for c, said in inside])))
            head = fit_linear("ridge", fit, known, folds, self.multi)
            scores["linear"].append(self._score(truth, head.logits(test)))
            checked["linear"].append(head.checked)
        return _Probed(
            {probe: np.array(values) for probe, values in scores.items()},
            {probe: np.array(values) for probe, values in checked.items()},
        )

    def _score(self, truth: NDArray[np.bool_], logits: F64) -> float:
        """Accuracy; of tiles with several classes the mean average precision over classes that some tile has."""
        if not self.multi:
            return float(np.take_along_axis(truth, logits.argmax(1)[:, None], 1).mean())
        present = truth.any(0)
        return float(average_precision_score(truth[:, present], logits[:, present], average="macro"))


def mean_of(values: F64) -> Mean:
    """Mean of the seeds' values and its 95 % interval by Student's t; of one seed no width is known, and none given."""
    mean = float(values.mean())
    if len(values) < 2:
        return Mean(mean, mean, mean)
    half = float(student_t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Mean(mean, mean - half, mean + half)


def _kept(
    width: float, blocks: int, gflop: float, probe: str, probed: _Probed, full: _Probed | None, pixels: _Probed | None
) -> Kept:
    score, ratio, above = probed.scores[probe], None, None
    if full is not None and pixels is not None:
        whole, base = full.scores[probe], pixels.scores[probe]
        ratio = mean_of(score / whole) if (whole > 0).all() else None
        above = mean_of((score - base) / (whole - base)) if (whole > base).all() else None
    found = mean_of(score)
    within = Mean(found.value, max(0.0, found.low), min(1.0, found.high))
    return Kept(width, blocks, gflop, probe, within, float(probed.checked[probe].mean()), ratio, above)


def _choice(probe: str, probed: Mapping[tuple[float, int], _Probed]) -> Choice:
    """The cut of the best score in cross-validation, for each seed, and its score on held-out tiles.

    Of cuts that are equal it is the first.
    """
    cuts = list(probed)
    best = np.stack([one.checked[probe] for one in probed.values()]).argmax(0)
    scores = np.stack([one.scores[probe] for one in probed.values()])[best, np.arange(len(best))]
    chosen = [cuts[int(index)] for index in best]
    return Choice(probe, tuple(cut[0] for cut in chosen), mean_of(scores), tuple(cut[1] for cut in chosen))


def scored_card(profile: Profile, record: Retention, digest: str, command: str, name: str) -> str:
    """The encoder's card as TOML with these scores, before those of other data sets that it had.

    The card's id is `name`, its file's stem. Weights stay where they are: the card says which they were by their hash.
    """
    found = scores_for_card(record, command)
    mine = {score.dataset for score in found}
    scored = replace(
        profile,
        id=name,
        aliases=(),
        checkpoint=None,
        checkpoint_sha256=None,
        weights_tried=f"{command}; SHA-256 {digest}",
        scores=found + tuple(score for score in profile.scores if score.dataset not in mine),
    )
    return profile_toml(scored)
