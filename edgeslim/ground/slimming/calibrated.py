"""Method "calibrated": the shape of "first" with better weights in it, from tiles without labels and without training.

Block after block, each on the residual stream that the blocks before it, already slimmed, leave:

- q . k of each head is truncated to the rank that weighs most on the tiles (solve.bilinear); where rotary positions
  turn q and k, they keep their first pairs, as with "first";
- so are the heads' outputs, whose projection is then refitted by ridge regression (solve.values, solve.refit);
- of the hidden units of the feed-forward network those are kept that explain most, and its second matrix is refitted
  (solve.units, solve.refit). The matrices before them keep the rows of those units.

The biases behind both refitted products take up the means. What is refitted imitates the same block in full on the
slimmed stream, or the residual stream of the full encoder, which mends what earlier blocks lost but smooths away what
cannot be predicted, or what lies between. Where the class token is the feature, it may count as much as all others or
nearly alone. Which is best depends on encoder and width: some ways (WAYS) are gone side by side, and the one is taken
whose features leave held-out tiles more of the neighbours that they have among each other by the full encoder's
features. (The mean square error of the features was tried for that and misleads: on a ViT-S/14 at its narrowest it was
lower where the whole of a loss is mended, and the k-NN score 12 points lower.) "first" goes along as one more way: an
encoder that was trained to be slimmed so is best left as it is.

MoDeGPT (Lin et al., arXiv 2408.09632) truncates the same products in language models; SliceGPT (Ashkboos et al., arXiv
2401.15024) cuts the residual width instead, which edgeslim leaves alone.

In memory are the tokens of all tiles at one depth, (n, N, d) float32, once for the full encoder and once for each way.
What is inside a block is summed to moments, batch by batch. (Of a ViT-B/16 and 256 tiles, 5 x 155 MB.)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from edgeslim.architecture import Architecture
from edgeslim.convnext_architecture import AnyArchitecture, ConvNextArchitecture
from edgeslim.errors import InputError
from edgeslim.ground.convnext import ConvNext
from edgeslim.ground.encoder import AnyEncoder
from edgeslim.ground.slimming import calibrated_convnext
from edgeslim.ground.slimming.calibration import Calibration
from edgeslim.ground.slimming.first import first_of
from edgeslim.ground.slimming.refitted import (
    LAST_CLASS_SHARE,
    Seen,
    block_of,
    embedded,
    fit_attention,
    looked_at,
    queries_and_keys,
    through,
    token_weights,
    units_of,
)
from edgeslim.ground.slimming.taken import FIRST, Calibrated, taken
from edgeslim.ground.vit import Vit

WAYS = ((0.0, LAST_CLASS_SHARE), (0.5, 0.5), (1.0, 0.5))
"""Share of what earlier blocks lost that each block mends; and, where the class token is the feature, its weight among
all tokens before the last block."""


def calibrate(encoder: AnyEncoder, narrow: AnyArchitecture, calibration: Calibration) -> Calibrated[Any]:
    """The encoder in the shape `narrow`, with calibrated weights.

    That is encoder.arch.at(width multiplier, depth), or has sizes of its own for each block (slimming.uneven).

    Deterministic for the calibration's seed on one machine. Raises InputError for tiles that cannot calibrate it, and
    where numbers are no longer finite.
    """
    calibration.check(encoder.arch)
    try:
        with torch.no_grad():  # not inference mode: what comes of it may be trained on
            if isinstance(encoder, ConvNext) and isinstance(narrow, ConvNextArchitecture):
                return calibrated_convnext.Walk(encoder, narrow, calibration).run()
            assert isinstance(encoder, Vit)
            assert isinstance(narrow, Architecture)
            return _Walk(encoder, narrow, calibration).run()
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise InputError(f"calibration: found no solution ({error}); give other tiles, or use method first") from None


@dataclass(slots=True)
class _Way:
    """One way to refit, all of whose blocks so far are slimmed."""

    mend: float | None
    """Share of what earlier blocks lost that is mended; None: the blocks are slimmed already."""
    class_share: float
    """Weight of the class token before the last block, where it is the feature."""
    name: str
    """For people."""
    stream: Tensor
    """(n, N, d) behind the blocks so far."""
    encoder: Vit
    """Of the narrow shape."""


class _Walk:
    """Through the blocks of the full encoder and of every way, side by side. Held-out tiles come first."""

    def __init__(self, encoder: Vit, narrow: Architecture, calibration: Calibration) -> None:
        self.encoder, self.arch, self.narrow, self.say = encoder, encoder.arch, narrow, calibration.say
        self.generator = torch.Generator().manual_seed(calibration.seed)
        self.full, self.held_out, self.checked = embedded(encoder, calibration, self.generator)
        by_class = self.arch.pool == "class"
        self.ways = [
            _Way(
                mend,
                share,
                f"mend {mend:g}, class {share:g}" if by_class else f"mend {mend:g}",
                self.full.clone(),
                _uncut(encoder, narrow),
            )
            for mend, share in WAYS
        ]
        first = Vit(narrow).eval()
        first.load_state_dict(first_of(encoder.state_dict(), self.arch, narrow))
        self.ways.append(_Way(None, 0.0, FIRST, self.full.clone(), first))

    def run(self) -> Calibrated[Vit]:
        """All blocks, then the best way."""
        for number in range(self.narrow.depth):
            self._block(number)
            if not self.full.isfinite().all():
                raise InputError(
                    f"calibration: the full encoder is not finite behind block {number + 1}, expected numbers; are its "
                    "weights whole, and the tiles normalised?"
                )
            self.say(f"calibrated block {number + 1} of {self.narrow.depth}")
        tiles = slice(0, self.held_out)
        found = {way.name: way.encoder.feature(way.stream[tiles]) for way in self.ways}
        expected = self.encoder.feature(self.full[tiles])
        return taken({way.name: way.encoder for way in self.ways}, found, expected, self.say)

    def _block(self, number: int) -> None:
        """One block of the full encoder and of each way: attention, then the feed-forward network."""
        index, last = looked_at(self.arch, self.generator), number == self.narrow.depth - 1
        whole, places = block_of(self.encoder, number), self.encoder.places
        head_dim, ffn_hidden = self.narrow.inner_sizes[number]
        through(self.full, partial(whole.add_attention, places=places))
        for way in self.ways:
            narrow = block_of(way.encoder, number)
            if way.mend is not None and head_dim < whole.attn.head_dim:
                seen = self._seen(way, way.mend, index, last)
                fit_attention(whole, seen, queries_and_keys(whole, seen), head_dim).write(whole, narrow)
            through(way.stream, partial(narrow.add_attention, places=way.encoder.places))
        through(self.full, whole.add_feed_forward)
        for way in self.ways:
            narrow = block_of(way.encoder, number)
            if way.mend is not None and ffn_hidden < whole.mlp.fc1.out_features:
                units_of(whole, self._seen(way, way.mend, index, last)).fit(ffn_hidden).write(whole, narrow)
            through(way.stream, narrow.add_feed_forward)

    def _seen(self, way: _Way, mend: float, index: Tensor, last: bool) -> Seen:
        """Of one half of a block, which `self.full` is behind already, and `way.stream` before."""
        weights = token_weights(self.arch, len(index), way.class_share, last)
        return Seen(
            self.arch, self.encoder.places, way.stream, self.full, mend, index, weights, self.held_out, self.checked
        )


def _uncut(encoder: Vit, narrow: Architecture) -> Vit:
    """An encoder of the narrow shape with the weights of whatever is not cut."""
    made = Vit(narrow)
    own = encoder.state_dict()
    state = made.state_dict()
    made.load_state_dict({key: own[key] if own[key].shape == value.shape else value for key, value in state.items()})
    return made.eval()
