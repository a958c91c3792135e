"""Method "healed": calibrated weights, taught by the full encoder's features of unlabelled tiles.

What starts are the weights of method "calibrated". All of the slimmed encoder's weights are then trained to imitate
what the full encoder makes of the same views of tiles (ground.slimming.targets), until

- each channel of the features, in the units of its own deviation over the tiles, is near the full encoder's (Huber's
  loss), and so is the direction of all of them together (cosine);
- a view's features are as near to the full encoder's of all other tiles as the full encoder's own are: the
  Kullback-Leibler divergence of two softmaxes over cosines, as in SEED (Fang et al., arXiv 2101.04731). It asks for
  neighbours, not for values, which a narrow encoder cannot all keep;
- the encoded tokens, of a ConvNeXt V2 the places of its last map, are near the full encoder's, too (Huber's loss).

The moving average of the weights is looked at several times on held-out tiles, that neither the calibration nor the
training sees. Kept is the state whose features leave those more of the neighbours that they have by the full encoder's
features; the calibrated weights are one of these states, so that a healing that breaks them changes nothing.

In memory are the tiles, (n, bands, H, W) float32, and the narrow encoder's training; the full encoder's tokens are on
disk. On the CPU a stopped run that is taken up again gives the same weights bit for bit; a GPU sums in no fixed order.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.errors import InputError
from edgeslim.ground.encoder import AnyEncoder, new_encoder, tokens_of
from edgeslim.ground.slimming.calibrated import calibrate
from edgeslim.ground.slimming.calibration import Calibration, tiles_needed
from edgeslim.ground.slimming.first import first_of
from edgeslim.ground.slimming.healing import RATES, Healing
from edgeslim.ground.slimming.scaled_adam import ScaledAdam
from edgeslim.ground.slimming.taken import Calibrated, neighbours_kept
from edgeslim.ground.slimming.targets import VIEWS, Targets, fingerprint, make_targets

HELD_OUT = 8
"""Every eighth tile is held out: which state is kept is decided on those."""
VIEWS_WANTED = 2048
"""Views that are taught: few tiles are turned and mirrored for that, up to eight times."""
CALIBRATED_WITH = 256
"""Tiles that the weights at the start are fitted to, or as many as that needs."""
ANCHORS = 4096
"""Views, at most, whose nearness is asked for."""
TOKENS_WEIGHT = 0.5
"""Of the encoded tokens' loss against each of the others."""
TRIAL_STEPS = 16
"""Of each rate that is tried."""
_TRIAL_JUDGED = 4
"""The last of these, whose mean loss is held against that of other rates."""
BEYOND_TRIAL = 3
"""Times the rate that is best in the trial is taken: what a higher one costs at first, more steps than a trial's gain.
Of Galileo nano at a tenth of its compute 0.0003 was best after 16 steps, and after 320 steps neighbours kept were 48 %
by it, 50 % by 0.001 and 54 % by 0.003."""
_AT_ONCE = 16
"""Held-out tiles at once."""


@dataclass(frozen=True, slots=True)
class Healed:
    """What a healing made."""

    encoder: AnyEncoder
    """In the shape of "first", in evaluation mode."""
    start: Calibrated[AnyEncoder]
    """What was healed."""
    step: int
    """After which its weights are kept; 0: they are those of the calibration, which no state was better than."""
    neighbours: dict[int, float]
    """Step -> share of the held-out tiles' neighbours that its features keep, of every state that was looked at."""


@dataclass(slots=True)
class _State:
    """Of a training run: all that a later process needs to go on."""

    model: AnyEncoder
    average: AnyEncoder
    optimizer: ScaledAdam
    step: int
    rate: float
    """Peak learning rate."""
    kept: dict[int, float]
    """Step -> neighbours kept."""
    best: dict[str, Tensor]
    """Weights of the best look."""

    def save(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "rate": self.rate,
            "kept": self.kept,
            "best": self.best,
        }
        _save(state, path)

    def load(self, path: Path) -> None:
        state = _load(path)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.rate, self.kept, self.best = (state[key] for key in ("step", "rate", "kept", "best"))


def heal(encoder: AnyEncoder, narrow: AnyArchitecture, calibration: Calibration, healing: Healing) -> Healed:
    """The encoder in the shape `narrow` = encoder.arch.at(width multiplier, depth), calibrated and then healed.

    Deterministic for the calibration's seed on one machine's CPU. Raises InputError as `calibrate` does, and where the
    healing's folder cannot be written.
    """
    calibration.check(encoder.arch)
    say, tiles = calibration.say, calibration.tiles
    order = torch.randperm(len(tiles), generator=torch.Generator().manual_seed(calibration.seed))
    held_out, taught = (
        part.sort().values for part in (order[: len(order) // HELD_OUT], order[len(order) // HELD_OUT :])
    )
    needed = tiles_needed(encoder.arch)
    # Of few tiles the calibration needs all.
    some = taught if len(taught) >= needed else order.sort().values
    most = max(CALIBRATED_WITH, needed)
    some = some[torch.linspace(0, len(some) - 1, min(most, len(some))).round().long()]
    full = _cut(encoder, narrow.depth)
    start = _calibrated(encoder, narrow, replace(calibration, tiles=tiles[some]), healing.folder)
    if narrow == full.arch:
        return Healed(start.encoder, start, 0, {})
    views = min(VIEWS, max(1, VIEWS_WANTED // len(taught)))
    make = {"folder": healing.folder, "device": healing.device, "say": say}
    targets = make_targets(full, tiles, taught, views, calibration.seed, **make)  # type: ignore[arg-type]
    expected = make_targets(full, tiles, held_out, 1, calibration.seed, **make)  # type: ignore[arg-type]
    found = _Run(start.encoder, targets, expected, healing, calibration.seed, say).run()
    best = best_of(found.kept)
    made = new_encoder(narrow)
    made.load_state_dict(found.best)
    if best == 0:
        say("healed: no state was better than the calibrated weights, which are kept")
    else:
        say(
            f"healed: neighbours of held-out tiles kept: {found.kept[0]:.0%} by calibrated, {found.kept[best]:.0%} "
            f"after step {best}, taken"
        )
    return Healed(made.eval(), start, best, found.kept)


def best_of(kept: dict[int, float]) -> int:
    """The step whose features keep most neighbours; of equal ones the earliest."""
    return max(kept, key=lambda step: (kept[step], -step))


def _cut(encoder: AnyEncoder, depth: int) -> AnyEncoder:
    """The encoder's first blocks, at full width."""
    arch = encoder.arch.at(1.0, depth)
    cut = new_encoder(arch)
    cut.load_state_dict(first_of(encoder.state_dict(), encoder.arch, arch))
    return cut.eval()


def _calibrated(
    encoder: AnyEncoder, narrow: AnyArchitecture, calibration: Calibration, folder: Path
) -> Calibrated[AnyEncoder]:
    """What is healed, from the folder where it was made there already."""
    path = folder / f"calibrated-{fingerprint(encoder, calibration.tiles, narrow, calibration.seed)}.pt"
    if not path.exists():
        made = calibrate(encoder, narrow, calibration)
        _save({"weights": made.encoder.state_dict(), "way": made.way, "neighbours": made.neighbours}, path)
        return made
    calibration.say("calibrated already")
    kept = _load(path)
    made = Calibrated(new_encoder(narrow).eval(), kept["way"], kept["neighbours"])
    made.encoder.load_state_dict(kept["weights"])
    return made


class _Run:
    """A healing from its first or its last saved step on."""

    def __init__(
        self,
        start: AnyEncoder,
        targets: Targets,
        held_out: Targets,
        healing: Healing,
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        self.targets, self.held_out, self.healing, self.seed, self.say = targets, held_out, healing, seed, say
        self.place = torch.device(healing.device)
        # What the tiles are is in what the full encoder makes of them.
        named = [held_out.features, targets.features]
        facts = (replace(healing, folder=Path()), seed)
        self.path = healing.folder / f"healed-{fingerprint(start, named, *facts)}.pt"
        features = targets.features
        self.mean, self.std = _scale(features, self.place)
        self.token_mean, self.token_std = _scale(targets.encoded(torch.arange(len(features))[:ANCHORS:8]), self.place)
        anchors = features[torch.linspace(0, len(features) - 1, min(ANCHORS, len(features))).long()]
        self.anchors = F.normalize((anchors.to(self.place) - self.mean) / self.std, dim=1)
        model = copy.deepcopy(start).to(self.place).train()
        rate = healing.learning_rate or RATES[0]
        self.state = _State(model, copy.deepcopy(model).eval(), ScaledAdam(model), 0, rate, {}, {})
        if self.path.exists():
            self.state.load(self.path)
            say(f"resuming after step {self.state.step} of {healing.steps}")
        else:
            if healing.learning_rate is None:
                self.state.rate = self._tried(model)
            self._look(0.0)

    def _tried(self, start: AnyEncoder) -> float:
        """BEYOND_TRIAL times that one of RATES by which a few steps lower the loss most."""
        found = {}
        for rate in RATES:
            model = copy.deepcopy(start)
            optimizer, losses = ScaledAdam(model), list[float]()
            for step in range(TRIAL_STEPS):
                losses.append(self._update(model, optimizer, step, rate * min(1, 2 * (step + 1) / TRIAL_STEPS)).item())
            lost = sum(losses[-_TRIAL_JUDGED:]) / _TRIAL_JUDGED
            found[rate] = lost if isfinite(lost) else inf
        best = min(found, key=lambda rate: found[rate])
        tried = ", ".join(f"{lost:.3f} by {rate:g}" for rate, lost in found.items())
        self.say(f"loss after {TRIAL_STEPS} steps of a trial: {tried}; learning rate {BEYOND_TRIAL * best:g}")
        return BEYOND_TRIAL * best

    def _update(self, model: AnyEncoder, optimizer: ScaledAdam, step: int, rate: float) -> Tensor:
        """One update of the weights; the loss before it."""
        loss = self._loss(model, self._chosen(step))
        model.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(rate)
        return loss.detach()

    def run(self) -> _State:
        """The remaining steps."""
        state, healing = self.state, self.healing
        lost, began, first = torch.zeros((), device=self.place), time.perf_counter(), state.step
        since = state.step
        for step in range(first, healing.steps):
            lost += self._update(state.model, state.optimizer, step, state.rate * healing.share(step))
            state.step = step + 1
            self._average()
            if healing.looks_after(state.step):
                self._look(float(lost) / (state.step - since))
                lost, since = torch.zeros((), device=self.place), state.step
                each = (time.perf_counter() - began) / (state.step - first)
                if healing.steps > state.step:
                    self.say(f"about {each * (healing.steps - state.step):.0f} s to go")
        return state

    def _chosen(self, step: int) -> Tensor:
        """(batch,) examples of a step: each once before any comes again, in an order that seed and pass decide."""
        count, batch = len(self.targets), self.healing.batch
        chosen = list[Tensor]()
        for number in range(step * batch, (step + 1) * batch):
            if number % count == 0 or not chosen:
                generator = torch.Generator().manual_seed((self.seed * 1_000_003 + number // count) % 2**63)
                order = torch.randperm(count, generator=generator)
            chosen.append(order[number % count])
        return torch.stack(chosen)

    def _loss(self, model: AnyEncoder, chosen: Tensor) -> Tensor:
        tiles = self.targets.seen(chosen).to(self.place)
        with torch.autocast(self.place.type, torch.bfloat16, enabled=self.healing.precision == "bf16"):
            encoded = model.encode(model.embed(tiles))
        encoded = encoded.float()
        found, expected = (
            (features - self.mean) / self.std
            for features in (model.pool(encoded), self.targets.features[chosen].to(self.place))
        )
        loss = F.smooth_l1_loss(found, expected) + 1 - F.cosine_similarity(found, expected).mean()
        near, wanted = (F.normalize(f, dim=1) @ self.anchors.T / self.healing.temperature for f in (found, expected))
        loss = loss + F.kl_div(near.log_softmax(1), wanted.softmax(1), reduction="batchmean")
        index = self.targets.index[chosen].to(self.place)
        tokens = tokens_of(encoded)
        tokens = tokens.gather(1, index.unsqueeze(2).expand(-1, -1, tokens.shape[2]))
        found, expected = (
            (some - self.token_mean) / self.token_std for some in (tokens, self.targets.encoded(chosen).to(self.place))
        )
        return loss + TOKENS_WEIGHT * F.smooth_l1_loss(found, expected)

    @torch.no_grad()
    def _average(self) -> None:
        """Moving average that forgets the first weights: its decay starts low and rises."""
        step = self.state.step
        share = 1 - min(self.healing.average_decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.state.average.parameters()), list(self.state.model.parameters()), share)

    def _look(self, loss: float) -> None:
        """Ask the average for the held-out tiles' neighbours, keep it if it is the best yet, and save."""
        state, asked = self.state, self.held_out
        with torch.inference_mode():
            pieces = [
                state.average(asked.seen(torch.arange(start, min(start + _AT_ONCE, len(asked)))).to(self.place)).cpu()
                for start in range(0, len(asked), _AT_ONCE)
            ]
        found = torch.cat(pieces)
        # What is not finite has no neighbours: topk would name some.
        kept = neighbours_kept(found, asked.features) if found.isfinite().all() else -1.0
        state.kept[state.step] = kept
        if best_of(state.kept) == state.step:
            state.best = {key: value.detach().cpu().clone() for key, value in state.average.state_dict().items()}
        state.save(self.path)
        if state.step:
            self.say(
                f"step {state.step} of {self.healing.steps}: loss {loss:.3f}, neighbours of held-out tiles kept "
                f"{max(kept, 0):.0%}, before {max(state.kept[0], 0):.0%}"
            )


def _scale(values: Tensor, place: torch.device) -> tuple[Tensor, Tensor]:
    """(..., d) -> mean and deviation (d,) of each channel; of a constant one 1."""
    flat = values.flatten(0, -2)
    std = flat.std(0)
    return flat.mean(0).to(place), torch.where(std > 1e-6 * std.max(), std, 1.0).to(place)


def _load(path: Path) -> dict[str, Any]:
    """What `_save` wrote."""
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); remove it, and start again") from None
    return found


def _save(state: dict[str, object], path: Path) -> None:
    """Whole or not at all."""
    partial = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch's own writer raises the latter
        raise InputError(f"{path}: cannot be written ({error}); give another folder by --run") from None
