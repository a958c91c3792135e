"""The counter against counts by hand, and attention's kernel against its products written out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.ground.counter import ProductCounter, count_flop


def ones(*shape: int, device: str = "cpu") -> Tensor:
    return torch.ones(*shape, device=device)


CASES: dict[str, tuple[Callable[[str], Tensor], int]] = {
    "mm": (lambda d: ones(2, 3, device=d) @ ones(3, 5, device=d), 2 * 2 * 3 * 5),
    "bmm": (lambda d: ones(7, 2, 3, device=d) @ ones(7, 3, 5, device=d), 2 * 7 * 2 * 3 * 5),
    "matmul of four axes": (lambda d: ones(4, 7, 2, 3, device=d) @ ones(4, 7, 3, 5, device=d), 2 * 28 * 2 * 3 * 5),
    "matmul broadcast": (lambda d: ones(7, 2, 3, device=d) @ ones(3, 5, device=d), 2 * 7 * 2 * 3 * 5),
    "mv": (lambda d: ones(2, 3, device=d) @ ones(3, device=d), 2 * 2 * 3),
    "dot": (lambda d: ones(3, device=d) @ ones(3, device=d), 2 * 3),
    "addmm": (lambda d: torch.addmm(ones(5, device=d), ones(2, 3, device=d), ones(3, 5, device=d)), 2 * 2 * 3 * 5),
    "baddbmm": (
        lambda d: torch.baddbmm(ones(7, 2, 5, device=d), ones(7, 2, 3, device=d), ones(7, 3, 5, device=d)),
        2 * 7 * 2 * 3 * 5,
    ),
    "linear": (lambda d: F.linear(ones(4, 2, 3, device=d), ones(5, 3, device=d), ones(5, device=d)), 2 * 8 * 3 * 5),
    "linear without bias": (lambda d: F.linear(ones(4, 2, 3, device=d), ones(5, 3, device=d)), 2 * 8 * 3 * 5),
    "einsum": (lambda d: torch.einsum("bij,bjk->bik", ones(7, 2, 3, device=d), ones(7, 3, 5, device=d)), 2 * 7 * 30),
    "convolution": (
        lambda d: F.conv2d(ones(2, 3, 8, 8, device=d), ones(5, 3, 3, 3, device=d), stride=2, padding=1),
        2 * 2 * 4 * 4 * 5 * 27,
    ),
    "patches": (
        lambda d: F.conv2d(ones(1, 12, 8, 8, device=d), ones(5, 12, 4, 4, device=d), ones(5, device=d), stride=4),
        2 * 4 * 5 * 12 * 16,
    ),
    "depthwise": (
        lambda d: F.conv2d(ones(2, 6, 8, 8, device=d), ones(6, 1, 7, 7, device=d), padding=3, groups=6),
        2 * 2 * 64 * 6 * 49,
    ),
    "grouped": (
        lambda d: F.conv2d(ones(1, 6, 8, 8, device=d), ones(4, 3, 1, 1, device=d), groups=2),
        2 * 64 * 4 * 3,
    ),
    "three axes": (lambda d: F.conv3d(ones(1, 2, 4, 4, 4, device=d), ones(5, 2, 2, 2, 2, device=d)), 2 * 27 * 5 * 16),
    "transposed": (
        lambda d: F.conv_transpose2d(ones(1, 3, 4, 4, device=d), ones(3, 5, 2, 2, device=d), stride=2),
        2 * 3 * 16 * 5 * 4,
    ),
    "attention": (
        lambda d: F.scaled_dot_product_attention(
            ones(2, 3, 7, 16, device=d), ones(2, 3, 9, 16, device=d), ones(2, 3, 9, 16, device=d)
        ),
        2 * 6 * 7 * 9 * (16 + 16),
    ),
    "attention, values of another width": (
        lambda d: F.scaled_dot_product_attention(
            ones(2, 3, 7, 16, device=d), ones(2, 3, 9, 16, device=d), ones(2, 3, 9, 4, device=d)
        ),
        2 * 6 * 7 * 9 * (16 + 4),
    ),
    "no product": (lambda d: F.gelu(ones(2, 3, device=d) + 1).softmax(-1).mean(), 0),
}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("grad", ["no_grad", "inference", "grad"])
@pytest.mark.parametrize("name", CASES)
def test_each_operator_counts_as_by_hand(name: str, device: str, grad: str) -> None:
    run, expected = CASES[name]
    mode = {"no_grad": torch.no_grad, "inference": torch.inference_mode, "grad": torch.enable_grad}[grad]
    with mode(), ProductCounter() as counter:
        run(device)
    assert counter.flop == expected


def test_the_fused_kernel_of_the_cpu_is_what_was_counted() -> None:
    q = torch.randn(2, 3, 7, 16)
    with torch.no_grad(), ProductCounter() as fused:
        found = F.scaled_dot_product_attention(q, q, q)
    with torch.no_grad(), ProductCounter() as written_out:
        expected = (q @ q.transpose(-1, -2) / 4).softmax(-1) @ q
    assert set(fused.by_operator) == {"_scaled_dot_product_flash_attention_for_cpu"}
    assert set(written_out.by_operator) == {"bmm"}
    assert fused.flop == written_out.flop == 2 * 2 * 6 * 7 * 7 * 16
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("backend", [torch.nn.attention.SDPBackend.MATH, torch.nn.attention.SDPBackend.FLASH_ATTENTION])
def test_every_way_to_run_attention_counts_the_same(backend: torch.nn.attention.SDPBackend) -> None:
    q = torch.randn(1, 2, 5, 8)
    with torch.nn.attention.sdpa_kernel(backend), torch.no_grad(), ProductCounter() as counter:
        F.scaled_dot_product_attention(q, q, q)
    assert counter.flop == 2 * 2 * 2 * 5 * 5 * 8


def test_a_module_counts_with_the_batch() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    one = 2 * (16 * 4 * 12 + 64 * 5)
    assert count_flop(module, torch.zeros(1, 3, 8, 8)) == one
    assert count_flop(module, torch.zeros(6, 3, 8, 8)) == 6 * one


def test_an_operator_that_nobody_judged_is_an_error() -> None:
    x = torch.eye(3)
    with pytest.raises(NotImplementedError, match=r"cholesky.*matrix product"), ProductCounter():
        torch.linalg.cholesky(x)
