import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from edgeslim.device import Device, load_device, take_device
from edgeslim.device_card import all_cards
from edgeslim.durations import startup_lacks
from edgeslim.errors import InputError, UnknownName, UsageError
from edgeslim.figure import Figure
from edgeslim.shelf import card_paths, shelf_folder

NEEDED = {
    "jetson-orin-nano-8gb",
    "jetson-orin-nx-16gb",
    "jetson-agx-orin-64gb",
    "raspberry-pi-4b-4gb",
    "raspberry-pi-5-8gb",
    "x86-64-host",
}


def figures(value: object) -> Iterator[Figure]:
    if isinstance(value, Figure):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from figures(getattr(value, field.name))
    elif isinstance(value, dict):
        for item in value.values():
            yield from figures(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from figures(item)


def test_the_boards_of_this_version_are_there() -> None:
    assert {card.id for card in all_cards()} >= NEEDED


@pytest.mark.parametrize("path", card_paths("devices"), ids=lambda path: path.stem)
def test_every_figure_of_every_card_names_its_source(path: Path) -> None:
    device = load_device(path)
    found = list(figures(device))
    assert len(found) >= 15
    assert all(len(figure.source) > 10 for figure in found)
    # No bare number hides in a card: each stands in a table with its source (the card's schema apart).
    bare = [line for line in path.read_text(encoding="utf-8").splitlines() if re.match(r"^[\w.]+ = [-\d]", line)]
    assert bare == ["schema = 1"]
    assert device.power_mode_reason
    assert all(mode.source for mode in device.power_mode)


@pytest.mark.parametrize("path", card_paths("devices"), ids=lambda path: path.stem)
def test_every_board_has_a_start_up_in_every_power_mode(path: Path) -> None:
    card = load_device(path)
    for mode in card.power_mode:
        device, _ = card.in_mode(mode.id)
        runtime = next(r for r in device.runtime if r.id == "onnxruntime-cpu")
        assert startup_lacks(device, runtime) == ()
        # Cores and peak belong together: a core of these boards has a clock of 0.9 to 2.6 GHz.
        flop_a_cycle = {"raspberry-pi-4b-4gb": 8, "x86-64-host": 32}.get(card.id, 16)
        assert 0.9 < device.unit_of(runtime).core_gflop_s / flop_a_cycle < 2.6


@pytest.mark.parametrize("path", card_paths("devices"), ids=lambda path: path.stem)
def test_no_board_is_planned_without_its_caps(path: Path) -> None:
    assert "maxn" not in load_device(path).default_power_mode.lower()


def test_ids_and_aliases_name_one_board_each() -> None:
    names = [name for path in card_paths("devices") for name in (path.stem, *load_device(path).aliases)]
    assert len(names) == len(set(names))
    assert take_device("jetson-orin").id == "jetson-orin-nano-8gb"


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
    fast, _ = device.in_mode("25W")
    assert fast.memory.bandwidth_gb_s.value == 102.4
    assert fast.memory.total_mib == device.memory.total_mib


def test_an_unknown_power_mode_lists_the_modes() -> None:
    expected = "unknown power mode '15' of jetson-orin-nano-8gb: expected one of 15W, 7W, 25W, MAXN_SUPER"
    with pytest.raises(UsageError, match=expected):
        take_device("jetson-orin").in_mode("15")


def test_an_unknown_device_lists_the_nearest() -> None:
    with pytest.raises(UnknownName, match="raspberry-pi-5"):
        take_device("raspbery-pi5")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (r"total_mib = \{[^\n]*", "total_mib = 8192", "memory: total_mib: found 8192, expected a table { value ="),
        (r"total_mib = \{[^\n]*", "total_mib = { value = 8192 }", "memory: total_mib: missing key 'source'"),
        (r"total_mib = \{[^\n]*", 'total_mib = { value = 8192, source = "" }', "source: found nothing"),
        (r"total_mib = \{[^\n]*", 'total_mib = { value = -1, source = "x" }', "value: found -1, expected a finite"),
        (r"total_mib = \{[^\n]*", 'total_mib = { value = "8", source = "x" }', "value: found '8', expected a number"),
        (r"total_mib = \{[^\n]*", 'total_mb = { value = 1, source = "x" }', "memory: unknown key 'total_mb'"),
        (r"total_mib = \{[^\n]*", 'total_mib = { value = 9, source = "x" }', "expected less than total_mib 9"),
        (r"sustained_fraction = \{[^\n]*", 'sustained_fraction = { value = 75, source = "x" }', "expected a share"),
        (r"head_dim = \{[^\n]*", 'head_dim = { value = 0, source = "x" }', "head_dim: found 0, expected a whole"),
        (r'default_power_mode = "15W"', 'default_power_mode = "20W"', "default_power_mode: found '20W', expected one"),
        (r"peak_gflop_s.cpu.fp32", "peak_gflop_s.npu.fp32", "peak_gflop_s: found 'npu', expected one of cpu, gpu"),
        (r'unit = "cpu"', 'unit = "npu"', "runtime onnxruntime-cpu: unit: found 'npu', expected one of cpu, gpu"),
        (
            r"storage_mb_s = \{[^\n]*",
            'storage_mb_s = { value = 0, source = "x" }',
            "storage_mb_s: found 0, expected more",
        ),
        (r"cores = \{[^\n]*", 'cores = { value = 1.5, source = "x" }', "cores: found 1.5, expected a whole number"),
        (r"cores.cpu =", "cores.npu =", "power_mode 7W: cores: found 'npu', expected one of cpu, gpu"),
        (
            r"weights_mb_s = \{[^\n]*",
            'weights_mb_s = { value = 0, source = "x" }',
            "weights_mb_s: found 0, expected more",
        ),
        (
            r'id = "15W"\n',
            'id = "15W"\npower_w = { value = 15, source = "its name" }\n',
            "power_mode 15W: power_w: source: found 'its name', expected what measured it",
        ),
        (
            r'id = "15W"\n',
            'id = "15W"\npower_w = { value = 0, source = "measured by a test" }\n',
            "power_mode 15W: power_w: found 0, expected more than 0",
        ),
        (r'id = "15W"\n', 'id = "15W"\npower_mw = 9\n', "power_mode 1: unknown key 'power_mw', expected some of id,"),
        (r"\nattention = [^\n]*", "", "efficiency.fp32: missing key 'attention'"),
        (r'basis = "related"', 'basis = "sure"', "basis: found 'sure', expected one of measured, related, assumed"),
        (r"schema = 1", "schema = 9", "schema: found 9, expected 1"),
        (r'id = "jetson-orin-nano-8gb"', 'id = "x"', "id: found 'x', expected the file's name"),
    ],
)
def test_wrong_cards_name_file_key_found_and_expected(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "jetson-orin-nano-8gb.toml"
    text = (shelf_folder("devices") / path.name).read_text(encoding="utf-8")
    changed = re.sub(old, lambda _: new, text, count=1)
    assert changed != text
    path.write_text(changed, encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_device(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_usable_memory_leaves_the_reserve_alone() -> None:
    device: Device = take_device("raspberry-pi-4b-4gb")
    assert device.memory.usable_mib == 4096 - 600
