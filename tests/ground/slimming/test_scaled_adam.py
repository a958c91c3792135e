"""Laws of the scaled optimiser; torch's Adam is its oracle where every size is 1."""

from __future__ import annotations

import torch
from torch import nn

from edgeslim.ground.slimming.scaled_adam import ScaledAdam, sizes


class Rows(nn.Module):
    """Rows of entries +1 and -1: of size 1."""

    def __init__(self) -> None:
        super().__init__()
        signs = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).sign()
        self.matrix = nn.Parameter(signs.clone())
        self.vector = nn.Parameter(signs[0].clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = (x * self.vector) @ self.matrix.T
        return y


def batches() -> list[torch.Tensor]:
    return list(torch.randn(7, 10, 6, generator=torch.Generator().manual_seed(1)))


def test_it_is_adam_where_all_sizes_are_one() -> None:
    own, theirs = Rows(), Rows()
    scaled = ScaledAdam(own)
    adam = torch.optim.Adam(theirs.parameters(), lr=0.01, eps=1e-12)
    for x in batches():
        for model in (own, theirs):
            model.zero_grad()
            model(x).square().mean().backward()
        scaled.step(0.01)
        adam.step()
    for found, expected in zip(own.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_row_moves_in_proportion_to_its_size() -> None:
    layer = nn.Linear(6, 3)
    with torch.no_grad():
        layer.weight.copy_(layer.weight * torch.tensor([[1.0], [1e-3], [50.0]]))
    before = layer.weight.detach().clone()
    size = before.square().mean(1).sqrt()
    optimizer = ScaledAdam(layer)
    (layer(batches()[0]) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    optimizer.step(0.01)
    # Adam's first step is the sign of the gradient.
    torch.testing.assert_close((layer.weight.detach() - before).abs(), (0.01 * size)[:, None].expand(3, 6))


def test_sizes_are_those_of_rows_and_nothing_is_stuck_at_zero() -> None:
    model = nn.Sequential(nn.Linear(6, 3), nn.LayerNorm(3))
    with torch.no_grad():
        model[0].weight.zero_()
    found = sizes(model)
    assert [tuple(size.shape) for size in found] == [(3, 1), (3,), (1,), (1,)]
    assert all((size > 0).all() for size in found)
    assert float(found[2]) == 1.0


def test_a_state_is_gone_on_with() -> None:
    runs = []
    for stop in (None, 3):
        model = Rows()
        optimizer = ScaledAdam(model)
        for number, x in enumerate(batches()):
            if number == stop:
                state = optimizer.state_dict()
                optimizer = ScaledAdam(model)
                optimizer.load_state_dict(state)
            model.zero_grad()
            model(x).square().mean().backward()
            optimizer.step(0.01)
        runs.append(model.state_dict())
    assert all(torch.equal(value, runs[1][key]) for key, value in runs[0].items())
