"""What the plan counts of a start is what ground and runner do."""

from __future__ import annotations

import pytest

from edgeslim import cost
from edgeslim.ground.golden import COUNT
from edgeslim.onboard.integrity import KEPT_TILES
from edgeslim.onboard.memory import batch_within
from edgeslim.planning.durations import REPLAYED_TILES
from edgeslim.profile import DEFAULT_ENCODER, take_profile
from edgeslim.size import GOLDEN_TILES


@pytest.mark.parametrize("name", [DEFAULT_ENCODER, "vit-s-16", "vit-l-16"])
def test_start_up_counts_what_the_runner_does(name: str) -> None:
    assert (GOLDEN_TILES, REPLAYED_TILES) == (COUNT, KEPT_TILES)
    full = take_profile(name).architecture
    batches = [batch_within(full.at(w), 10, None, 4, 2**62) for w in full.width_steps()]
    assert max(batches) == cost.default_batch(full.at(full.width_steps()[0]))
