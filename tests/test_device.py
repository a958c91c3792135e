"""Devices: complete boards in a power mode."""

import pytest

from edgeslim.device import Device, take_device
from edgeslim.errors import UsageError


def test_a_power_mode_replaces_its_figures_only() -> None:
    device = take_device("jetson-orin")
    base, mode = device.in_mode()
    assert (base, mode.id) == (device, "15W")
    low, _ = device.in_mode("7W")
    assert low.unit[0].peak_gflop_s["fp32"].value == 61.4
    assert low.memory == device.memory
    assert low.unit[0].cores is not None
    assert low.unit[0].cores.value == 4
    was, now = device.runtime[0].startup_ms, low.runtime[0].startup_ms
    assert was is not None
    assert now is not None
    assert now.value == pytest.approx(was.value * (144 / 6) / (61.4 / 4))
    assert "power mode 7W" in now.source
    for name in ("band_pixel_ns", "window_us"):
        beside, slower = getattr(device.runtime[0], name), getattr(low.runtime[0], name)
        assert slower.value / beside.value == pytest.approx(now.value / was.value)
    fast, _ = device.in_mode("25W")
    assert fast.memory.bandwidth_gb_s.value == 102.4
    assert fast.memory.total_mib == device.memory.total_mib


def test_an_unknown_power_mode_lists_the_modes() -> None:
    expected = "unknown power mode '15' of jetson-orin-nano-8gb: expected one of 15W, 7W, 25W, MAXN_SUPER"
    with pytest.raises(UsageError, match=expected):
        take_device("jetson-orin").in_mode("15")


def test_usable_memory_leaves_the_reserve_alone() -> None:
    device: Device = take_device("raspberry-pi-4b-4gb")
    assert device.memory.usable_mib == 4096 - 600
