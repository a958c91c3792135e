"""An encoder's card as the TOML that `edgeslim.profile` reads."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import tomli_w

from edgeslim.manifest import sha256_of
from edgeslim.profile import Profile, card_facts


def profile_toml(profile: Profile) -> str:
    """The text of an encoder card, which `load_profile` reads."""
    facts = card_facts(profile)
    data: dict[str, Any] = {
        "schema": 1,
        "id": profile.id,
        "aliases": list(profile.aliases),
        "name": profile.name,
        "licence": profile.licence,
        "source": profile.source,
        "weights_tried": profile.weights_tried,
        "made_for": profile.made_for,
        "gsd_m": profile.gsd_m,
        "architecture": profile.architecture.to_dict(),
        **{key: facts.get(key) for key in ("slimmable", "radiometry", "band", "land_share_source", "class")},
        "score": [{k: v for k, v in asdict(score).items() if v is not None} for score in profile.scores],
    }
    if profile.checkpoint is not None:
        data["checkpoint"] = profile.checkpoint.name
        data["checkpoint_sha256"] = sha256_of(profile.checkpoint)
    return tomli_w.dumps({k: v for k, v in data.items() if v is not None and v != []})
