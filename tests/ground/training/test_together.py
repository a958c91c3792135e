"""Several processes: two that talk by gloo give the gradients and weights of one; nothing is said where they cannot."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from edgeslim.errors import UsageError
from edgeslim.ground.training import together
from tests.ground.training.several import OBJECTIVES, gradients, weights

Found = dict[str, dict[str, Tensor]]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Found, Found]]:
    """What each of two processes found, by objective. The names in their environment are those of torchrun."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.ground.training.several", str(folder)],
            cwd=Path(__file__).parents[3],
            env={**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in running:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    ranks = [{o: torch.load(folder / f"{rank}-{o}.pt", weights_only=True) for o in OBJECTIVES} for rank in range(2)]
    return {objective: (ranks[0][objective], ranks[1][objective]) for objective in OBJECTIVES}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_processes_give_the_gradients_of_one(two: dict[str, tuple[Found, Found]], objective: str) -> None:
    alone, first = gradients(objective), two[objective][0]["gradients"]
    assert alone.keys() == first.keys()
    for name, gradient in alone.items():
        torch.testing.assert_close(first[name], gradient, rtol=1e-4, atol=2e-6, msg=lambda text, n=name: f"{n}: {text}")
    # A share's own gradient is another: the test would see it if nothing were averaged, or no key gathered.
    largest = max(float(g.abs().max()) for g in alone.values())
    assert largest > 1e-2


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_processes_give_the_weights_of_one(two: dict[str, tuple[Found, Found]], objective: str) -> None:
    alone, (first, second) = weights(objective), (two[objective][0]["weights"], two[objective][1]["weights"])
    assert alone.keys() == first.keys() == second.keys()
    for name, weight in alone.items():
        assert torch.equal(first[name], second[name]), name
        if name.endswith("qkv.bias") or (".stem." in name and name.endswith("bias")):
            continue  # neither softmax nor BatchNorm sees such a bias: of a gradient of rounding Adam makes whole steps
        torch.testing.assert_close(first[name], weight, rtol=1e-3, atol=2e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "size", lambda: 3)
    together.check_batch(12)
    with pytest.raises(UsageError, match="--batch: found 16 for 3 processes, expected a multiple of 3"):
        together.check_batch(16)


def test_one_process_says_nothing_to_anyone() -> None:
    rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert together.share(rows) is rows
    assert torch.equal(together.gathered(rows), rows)
    assert together.averaged(rows) is rows
    with together.joined("cpu") as place:
        assert (place, together.size(), together.rank()) == ("cpu", 1, 0)
