"""What the ground's verbs share: which encoder at which cut, which weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeslim.errors import InputError, UsageError

if TYPE_CHECKING:
    from edgeslim.cuts import Cut
    from edgeslim.ground.checkpoints.checkpoint import Checkpoint, OpenCheckpoint
    from edgeslim.ground.exporting.capture import Request
    from edgeslim.ground.slimming.calibration import Calibration
    from edgeslim.ground.slimming.healing import Healing
    from edgeslim.head_card import HeadCard
    from edgeslim.profile import Profile


def make_folder(path: Path) -> None:
    """Make the folder of -o and what lies above it. Raises InputError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"-o {path}: cannot be made a folder ({error.strerror}); choose another -o") from None


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a verb of the ground is to work on."""

    profile: Profile
    """Encoder card."""
    cut: Cut
    """What is kept of the encoder."""
    plan: dict[str, Any]
    """The plan's own record; empty without one."""


def chosen_cut(
    plan: Path | None, encoder: str | None, width_multiplier: float | None, depth: int | None, cards: Path | None
) -> Chosen:
    """From a plan, or from --encoder, --width-multiplier (1 where only a depth is given) and --depth.

    Raises UsageError where both or neither are given, or where the plan's architecture is no longer the card's.
    """
    from edgeslim.cli.encoder import encoder_of
    from edgeslim.planning.plan import read_plan
    from edgeslim.profile import DEFAULT_ENCODER

    if width_multiplier is not None or depth is not None:
        if plan is not None:
            given = "--depth" if width_multiplier is None else "--width-multiplier"
            raise UsageError(f"found both {plan} and {given}: give one of them")
        profile = encoder_of(encoder or DEFAULT_ENCODER, cards)
        return Chosen(profile, cut_of(profile, 1.0 if width_multiplier is None else width_multiplier, depth), {})
    if encoder is not None:
        raise UsageError(f"--encoder {encoder} needs --width-multiplier, or leave both out and give a plan")
    path = plan or Path("plan.json")
    made = read_plan(path)
    profile = encoder_of(made.encoder, cards)
    if profile.architecture != made.architecture:
        raise UsageError(f"{path}: was made for another {made.encoder} than the card here; run `edgeslim plan` again")
    return Chosen(profile, made.chosen.cut, made.summary())


def cut_of(profile: Profile, width_multiplier: float, depth: int | None) -> Cut:
    """A cut of an encoder; all of its blocks are no cut in depth. Raises InputError for what it does not have."""
    from edgeslim.cuts import Cut

    blocks, fewest = profile.architecture.at(width_multiplier, depth).depth, profile.architecture.fewest_blocks
    if blocks < fewest:
        raise InputError(f"--depth: found {depth}, expected at least {fewest}: what {profile.id} ends in fits no fewer")
    return Cut(width_multiplier, None if blocks == profile.architecture.depth else blocks)


def cut_of_head(
    card: HeadCard,
    plan: Path | None,
    encoder: str | None,
    width_multiplier: float | None,
    depth: int | None,
    cards: Path | None,
) -> Chosen:
    """The same for a head: on the encoder and at the cut that it was fitted for, which nothing else may contradict.

    Raises UsageError where an encoder, a width, a depth or a plan does.
    """
    from dataclasses import replace

    from edgeslim.cli.encoder import encoder_of

    if plan is not None:
        chosen = chosen_cut(plan, encoder, width_multiplier, depth, cards)
    else:
        profile = encoder_of(encoder or card.encoder, cards)
        width = card.width_multiplier if width_multiplier is None else width_multiplier
        chosen = Chosen(profile, cut_of(profile, width, card.depth if depth is None else depth), {})
    profile, cut = chosen.profile, chosen.cut
    if replace(profile.architecture, tile_px=card.architecture.tile_px) != card.architecture:
        raise UsageError(f"--head: was fitted on another encoder ({card.encoder}) than {profile.id}; fit one on it")
    if card.architecture.at(*cut) != card.architecture.at(*card.cut):
        raise UsageError(f"--head: was fitted at width {card.cut}, found {cut}; fit one at that cut")
    return replace(chosen, profile=replace(profile, architecture=card.architecture))


def calibration_of(
    profile: Profile,
    method: str,
    tiles: Path | None,
    tiles_max: int | None,
    seed: int,
    accept_gsd: bool,
    *,
    say: Callable[[str], None],
) -> Calibration | None:
    """What a slimming method is given: tiles of --tiles for those that learn of them, None for those that cut.

    Raises UsageError for a method that is none, or that --tiles does not go with; InputError as `read_calibration`, and
    for "learned" with an encoder that did not learn it.
    """
    from edgeslim.ground.slimming.calibration_tiles import read_calibration
    from edgeslim.planning.plan import CUTTING, METHODS, check_method

    if method not in METHODS:
        raise UsageError(f"--method: found {method!r}, expected one of {', '.join(METHODS)}")
    check_method(method, profile)
    if method in CUTTING:
        if tiles is not None or tiles_max is not None:
            raise UsageError(
                f"--method {method}: found --tiles or --tiles-max, expected them for calibrated or healed only"
            )
        return None
    if tiles is None:
        raise UsageError(f"--method {method}: found no --tiles, expected a folder or zip of image tiles, or a scene")
    return read_calibration(profile, tiles, tiles_max, seed, accept_gsd, method=method, say=say)


def healing_of(method: str, folder: Path, flags: dict[str, Any]) -> Healing | None:
    """How "healed" heals, with its run in `folder`, by the `flags` that are given; None for every other method.

    Raises UsageError for flags in vain, and for a GPU that there is not; InputError for values out of their range.
    """
    given = {flag: value for flag, value in flags.items() if value is not None}
    if method != "healed":
        if given:
            raise UsageError(f"--method {method}: found {next(iter(given))}, expected it for healed only")
        return None
    import torch

    from edgeslim.ground.slimming.healing import Healing

    if given.get("--device") == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device: found no GPU that torch {torch.__version__} can use, expected one; use cpu")
    given.pop("--run", None)
    return Healing(folder, **{flag[2:].replace("-", "_"): value for flag, value in given.items()})


def requests_of(
    targets: list[str] | None, precisions: list[str] | None, plan: dict[str, Any], cards: Path | None
) -> list[Request]:
    """Every target in every precision; without either, the plan's, or ONNX in fp32.

    "all" stands for every target that a runtime of the plan's device runs. A precision that only some of several
    targets have is left to those. Raises UsageError where no target has it, or where "all" has no plan.
    """
    from edgeslim.device import take_device
    from edgeslim.ground.exporting.capture import Request
    from edgeslim.target import take_target, targets_on

    if targets and "all" in targets:
        if not plan:
            raise UsageError("--target all: found no plan, expected one to say which device it is for")
        device = take_device(str(plan["device"]), cards)
        chosen = list(targets_on((runtime.id for runtime in device.runtime), cards))
    else:
        chosen = [take_target(name, cards) for name in dict.fromkeys(targets or [plan.get("target", "onnx")])]
    wanted = list(dict.fromkeys(precisions or [plan.get("precision", chosen[0].precisions[0])]))
    for name in wanted:
        if not any(name in target.precisions for target in chosen):
            raise UsageError(
                f"--precision {name}: {', '.join(t.id for t in chosen)}: expected one of "
                f"{', '.join(dict.fromkeys(p for t in chosen for p in t.precisions))}"
            )
    return [Request(target, name) for target in chosen for name in wanted if name in target.precisions]


def full_checkpoint(profile: Profile, path: Path | None, cards: Path | None = None) -> tuple[Checkpoint, str]:
    """The full-width weights and their SHA-256: `path`, or those that ship beside the card."""
    from edgeslim.ground.checkpoints.checkpoint import Checkpoint

    opened, digest = opened_checkpoint(profile, path, cards)
    return Checkpoint(opened.architecture, dict(opened.tensors()), opened.heads), digest


def opened_checkpoint(profile: Profile, path: Path | None, cards: Path | None = None) -> tuple[OpenCheckpoint, str]:
    """The same, not read yet."""
    from edgeslim.ground.checkpoints.checkpoint import open_checkpoint
    from edgeslim.ground.flight import open_profile_checkpoint
    from edgeslim.manifest import sha256_of

    if path is not None:
        return open_checkpoint(path, profile.architecture, cards, profile.made_for, profile.gsd_m), sha256_of(path)
    return open_profile_checkpoint(profile, cards)
