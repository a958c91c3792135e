"""A checkpoint cut to a width and a depth, with the head of that cut."""

from __future__ import annotations

from edgeslim.ground.checkpoints.checkpoint import Checkpoint
from edgeslim.ground.slimming.slim import Slimmed, slim_by


def slimmed_checkpoint(checkpoint: Checkpoint, width_multiplier: float, depth: int | None = None) -> Checkpoint:
    """The checkpoint cut by "first" to one width and its first `depth` blocks (None: all).

    With the head of that cut if there is one. Raises InputError as `slim` does.
    """
    return checkpoint_of(checkpoint, slim_by("first", checkpoint.build(), width_multiplier, depth))


def checkpoint_of(full: Checkpoint, slimmed: Slimmed) -> Checkpoint:
    """What a method made of a checkpoint, with the head of that width if there is one that fits.

    Heads were fitted to the features of "first": refitted weights have none, unless "first" was found to be better,
    or nothing is cut.
    """
    encoder = slimmed.encoder
    size, fitted = encoder.arch.units_of_width, full.heads_behind(encoder.arch.depth)
    heads = {size: fitted[size]} if slimmed.is_first and size in fitted else {}
    return Checkpoint(encoder.arch, {k: v.detach() for k, v in encoder.state_dict().items()}, heads)
