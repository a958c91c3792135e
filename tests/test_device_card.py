"""Device cards: what they may hold, what is wrong with them in one line, and what edgeslim's own hold."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest

from edgeslim.device import Device, complete, load_device, take_device
from edgeslim.device_card import DeviceCard, MemoryCard, Multiples, Refusal, all_cards, load_card, take_card
from edgeslim.errors import CardLacks, InputError, UnknownName
from edgeslim.figure import Figure
from edgeslim.measurement import Measurement
from edgeslim.planning.choose import make_plan
from edgeslim.planning.durations import startup_lacks
from edgeslim.profile import take_profile
from edgeslim.shelf import card_paths, shelf_folder
from edgeslim.target import take_target

PATHS = card_paths("devices")
CARDS = all_cards()
PLANNABLE = [card for card in CARDS if not card.lacks()]
NEEDED = {
    *("jetson-orin-nano-4gb", "jetson-orin-nano-8gb", "jetson-orin-nano-super", "jetson-orin-nx-8gb"),
    *("jetson-orin-nx-16gb", "jetson-agx-orin-32gb", "jetson-agx-orin-64gb", "jetson-xavier-nx", "jetson-agx-xavier"),
    *("jetson-tx2", "jetson-nano", "raspberry-pi-zero-2w", "raspberry-pi-3b-plus", "raspberry-pi-4b-4gb"),
    *("raspberry-pi-5-8gb", "raspberry-pi-cm4", "raspberry-pi-cm5", "coral-usb-accelerator", "coral-dev-board"),
    *("hailo-8", "hailo-8l", "myriad-x", "myriad-2", "rk3588", "imx8m-plus", "voxl-2", "zynq-7020", "zcu102"),
    *("kria-k26", "versal-vck190", "unibap-ix5-100", "unibap-ix10-100", "kp-labs-leopard", "hpsc-pic64"),
    *("ops-sat-sepp", "intel-n100", "intel-n5105", "x86-64-host"),
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


def test_the_boards_that_people_fly_are_there() -> None:
    names = {name for card in CARDS for name in (card.id, *card.aliases)}
    assert names >= NEEDED
    assert len(CARDS) == len(PATHS)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_figure_of_every_card_names_its_source(path: Path) -> None:
    card = load_card(path)
    assert all(len(figure.source) > 10 for figure in figures(card))
    # No bare number hides in a card: each stands in a table with its source (the card's schema apart).
    bare = [line for line in path.read_text(encoding="utf-8").splitlines() if re.match(r"^[\w.]+ = [-\d]", line)]
    assert bare == ["schema = 1"]
    assert card.family
    assert card.power_mode_reason
    assert all(mode.source for mode in card.power_mode)
    assert all(len(fact.source) > 5 for fact in card.fact)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.id)
def test_a_card_is_planned_on_or_says_what_it_lacks(card: DeviceCard) -> None:
    refused = card.unit and len(card.refused) == len(card.unit)
    if card in PLANNABLE and not refused:
        device = complete(card)
        assert {runtime.unit for runtime in device.runtime}.isdisjoint(unit.id for unit in card.refused)
        assert startup_lacks(device, next(r for r in device.runtime if r.id == "onnxruntime-cpu")) == ()
        for runtime in device.runtime:  # a scene on a runtime whose start is known counts what goes on beside it, too
            assert (runtime.startup_ms is None) == (runtime.band_pixel_ns is None) == (runtime.window_us is None)
        return
    with pytest.raises(InputError) as error:
        complete(card)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(card.id)
    if refused:
        assert "--allow-unverified" in str(error.value)
    else:
        assert isinstance(error.value, CardLacks)
        assert error.value.keys == card.lacks()
        assert all(key in str(error.value) for key in card.lacks())
        assert "--cards" in str(error.value)


@pytest.mark.parametrize("card", PLANNABLE, ids=lambda card: card.id)
def test_cores_and_peak_belong_together_in_every_power_mode(card: DeviceCard) -> None:
    for mode in card.power_mode:
        device, _ = complete(card).in_mode(mode.id)
        unit = device.unit_of(next(r for r in device.runtime if r.id == "onnxruntime-cpu"))
        # A core of these boards has a clock of 0.8 to 2.9 GHz, and does 8 to 32 FLOP a cycle.
        flop_a_cycle = 32 if card.id == "x86-64-host" else 8 if re.search(r"A53|A57|A72", unit.name) else 16
        assert unit.core_gflop_s is not None
        assert 0.8 < unit.core_gflop_s / flop_a_cycle < 2.9


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.id)
def test_no_board_is_planned_without_its_caps(card: DeviceCard) -> None:
    assert "maxn" not in card.default_power_mode.lower()


def test_what_nobody_checked_says_so() -> None:
    """The fact sheet's rows that were not checked against their source are used with these words only."""
    unchecked = re.compile(
        r"\bnxp\.com(?!/docs)|module table|kplabs\.space|unibap\.com|hailo\.ai|TX2 data sheet|, Rockchip"
    )
    said = [source for path in PATHS for source in re.findall(r'source = "([^"]*)"', path.read_text(encoding="utf-8"))]
    found = [source for source in said if unchecked.search(source)]
    assert len(found) >= 15
    assert [source for source in found if "(not checked against its source)" not in source] == []


def test_no_accelerator_is_estimated_unasked() -> None:
    for card in CARDS:
        for unit in card.unit:
            if unit.id in ("npu", "vpu", "fpga"):
                assert unit.refused is not None
                assert not [runtime for runtime in card.runtime if runtime.unit == unit.id]


def test_ids_and_aliases_name_one_board_each() -> None:
    names = [name for card in CARDS for name in (card.id, *card.aliases)]
    assert len(names) == len(set(names))
    assert take_card("jetson-orin").id == "jetson-orin-nano-8gb"


def test_an_unknown_board_lists_the_nearest() -> None:
    with pytest.raises(UnknownName, match="raspberry-pi-5"):
        take_card("raspbery-pi5")


def test_every_missing_key_is_named_at_once() -> None:
    card = replace(take_card("rpi4"), memory=MemoryCard(), multiples=None, tile_period_ms=None, runtime=())
    with pytest.raises(CardLacks) as error:
        complete(card)
    memory = ("memory.total_mib", "memory.reserve_mib", "memory.bandwidth_gb_s", "memory.sustained_fraction")
    assert error.value.keys == ("tile_period_ms", "multiples", *memory, "runtime")
    bare = replace(card, unit=tuple(replace(unit, peak_gflop_s=None) for unit in card.unit), power_mode=card.power_mode)
    assert "peak_gflop_s of unit cpu" in bare.lacks()
    assert "unit" in replace(card, unit=()).lacks()


def test_a_refused_unit_is_left_out_unless_asked() -> None:
    card = take_card("jetson-xavier-nx")
    assert [runtime.id for runtime in complete(card).runtime] == ["onnxruntime-cpu"]
    assert [runtime.id for runtime in complete(card, allow_unverified=True).runtime] == ["onnxruntime-cpu", "tensorrt"]


def test_a_whole_card_is_a_device_and_the_device_a_card() -> None:
    for card in PLANNABLE:
        if len(card.refused) == len(card.unit):
            continue
        device = complete(card, allow_unverified=True)
        assert isinstance(device, Device)
        for field in fields(DeviceCard):
            if field.name != "memory":
                assert getattr(device, field.name) == getattr(card, field.name)
        assert all(getattr(device.memory, f.name) == getattr(card.memory, f.name) for f in fields(MemoryCard))


RPI4 = "raspberry-pi-4b-4gb"
ORIN = "jetson-orin-nano-8gb"
MISTAKES = [
    (ORIN, r"total_mib = \{[^\n]*", "total_mib = 8192", "memory: total_mib: found 8192, expected a table { value ="),
    (ORIN, r"total_mib = \{[^\n]*", "total_mib = { value = 8192 }", "memory: total_mib: missing key 'source'"),
    (ORIN, r"total_mib = \{[^\n]*", 'total_mib = { value = 8192, source = "" }', "source: found nothing"),
    (ORIN, r"total_mib = \{[^\n]*", 'total_mib = { value = -1, source = "x" }', "value: found -1, expected a finite"),
    (ORIN, r"total_mib = \{[^\n]*", 'total_mib = { value = "8", source = "x" }', "value: found '8', expected a number"),
    (ORIN, r"total_mib = \{[^\n]*", 'total_mib = { value = true, source = "x" }', "value: found True, expected a numb"),
    (ORIN, r"total_mib = \{[^\n]*", 'total_mib = { value = nan, source = "x" }', "value: found nan, expected a finite"),
    (
        ORIN,
        r"total_mib = \{[^\n]*",
        'total_mb = { value = 1, source = "x" }',
        "memory: unknown key 'total_mb', expected",
    ),
    (ORIN, r"total_mib = \{[^\n]*", 'total_mib = { value = 9, source = "x" }', "expected less than total_mib 9"),
    (
        RPI4,
        r"bandwidth_gb_s =",
        "bandwidth_mb_s =",
        "memory: unknown key 'bandwidth_mb_s', expected some of total_mib,",
    ),
    (RPI4, r"storage_mb_s =", "storage_gb_s =", "unknown key 'storage_gb_s', expected some of schema, id, aliases"),
    (RPI4, r"startup_ms =", "startup_s =", "runtime 1: unknown key 'startup_s', expected some of id, unit"),
    (RPI4, r"peak_gflop_s.fp32 =", "peak_tflop_s.fp32 =", "unit 1: unknown key 'peak_tflop_s', expected some of id"),
    (
        RPI4,
        r"peak_gflop_s.fp32 =",
        "peak_gflop_s.fp64 =",
        "peak_gflop_s: found 'fp64', expected one of fp32, fp16, int8",
    ),
    (
        RPI4,
        r"peak_gflop_s.fp32 = \{ value = ",
        "peak_gflop_s.fp32 = { value = -",
        "found -57.6, expected a finite number",
    ),
    (RPI4, r"value = 12.8,", "value = 5e-324,", "bandwidth_gb_s: value: found 4.94066e-324, expected 0, or a number"),
    (
        RPI4,
        r"value = 1000,",
        "value = 1e308,",
        "tile_period_ms: value: found 1e+308, expected 0, or a number from 1e-30",
    ),
    (ORIN, r"sustained_fraction = \{[^\n]*", 'sustained_fraction = { value = 75, source = "x" }', "expected a share"),
    (ORIN, r"head_dim = \{[^\n]*", 'head_dim = { value = 0, source = "x" }', "head_dim: found 0, expected a whole"),
    (
        ORIN,
        r'default_power_mode = "15W"',
        'default_power_mode = "20W"',
        "default_power_mode: found '20W', expected one",
    ),
    (ORIN, r'id = "7W"', 'id = "15W"', "power_mode: found '15W' more than once, expected each id once"),
    (ORIN, r"peak_gflop_s.cpu.fp32", "peak_gflop_s.npu.fp32", "peak_gflop_s: found 'npu', expected one of cpu, gpu"),
    (ORIN, r'unit = "cpu"', 'unit = "npu"', "runtime onnxruntime-cpu: unit: found 'npu', expected one of cpu, gpu"),
    (
        ORIN,
        r"storage_mb_s = \{[^\n]*",
        'storage_mb_s = { value = 0, source = "x" }',
        "storage_mb_s: found 0, expected m",
    ),
    (ORIN, r"cores = \{[^\n]*", 'cores = { value = 1.5, source = "x" }', "cores: found 1.5, expected a whole number"),
    (ORIN, r"cores = \{[^\n]*", 'cores = { value = 1e9, source = "x" }', "cores: found 1e+09, expected a whole number"),
    (ORIN, r'id = "7W"', 'id = "all"', "power_mode: found an id 'all', which asks for every mode, expected another"),
    (
        RPI4,
        r"peak_gflop_s.fp32 = \{[^\n]*",
        "",
        "efficiency: found 'fp32', expected none: the card has nothing that it could be",
    ),
    (ORIN, r"cores.cpu =", "cores.npu =", "power_mode 7W: cores: found 'npu', expected one of cpu, gpu"),
    (
        ORIN,
        r"weights_mb_s = \{[^\n]*",
        'weights_mb_s = { value = 0, source = "x" }',
        "weights_mb_s: found 0, expected mo",
    ),
    (
        *(ORIN, r'id = "15W"\n', 'id = "15W"\npower_w = { value = 15, source = "its name" }\n'),
        "power_mode 15W: power_w: source: found 'its name', expected what measured it",
    ),
    (
        *(ORIN, r'id = "15W"\n', 'id = "15W"\npower_w = { value = 0, source = "measured by a test" }\n'),
        "power_mode 15W: power_w: found 0, expected more than 0",
    ),
    (ORIN, r'id = "15W"\n', 'id = "15W"\npower_mw = 9\n', "power_mode 1: unknown key 'power_mw', expected some of id,"),
    (ORIN, r"\nattention = [^\n]*", "", "efficiency.fp32: missing key 'attention'"),
    (ORIN, r'basis = "related"', 'basis = "sure"', "basis: found 'sure', expected one of measured, related, assumed"),
    (ORIN, r"schema = 1", "schema = 9", "schema: found 9, expected 1"),
    (ORIN, r'id = "jetson-orin-nano-8gb"', 'id = "x"', "id: found 'x', expected the file's name"),
    (ORIN, r'name = "6x', 'refused = { reason = "", source = "x" }\nname = "6x', "refused: reason: found nothing"),
    (ORIN, r'name = "6x', 'refused = "hot"\nname = "6x', "unit 1: refused: found 'hot', expected a table { reason ="),
    (ORIN, r"\[memory\]", "[memory", "not valid TOML"),
]


@pytest.mark.parametrize(("card", "old", "new", "message"), MISTAKES)
def test_wrong_cards_name_file_key_found_and_expected(
    tmp_path: Path, card: str, old: str, new: str, message: str
) -> None:
    path = tmp_path / f"{card}.toml"
    text = (shelf_folder("devices") / path.name).read_text(encoding="utf-8")
    changed = re.sub(old, lambda _: new, text, count=1)
    assert changed != text
    path.write_text(changed, encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_card(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert all("\n" not in problem and problem.startswith(str(path)) for problem in error.value.problems)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / f"{RPI4}.toml"
    text = (shelf_folder("devices") / path.name).read_text(encoding="utf-8")
    text = text.replace("bandwidth_gb_s =", "bandwidth_mb_s =").replace(
        "cores = { value = 4,", 'cores = { value = "4",'
    )
    path.write_text(text.replace("weight_copies = { value = 1.02,", "weight_copies = { value = -2,"), encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_card(path)
    assert [problem.removeprefix(f"{path}: ").split(",")[0] for problem in error.value.problems] == [
        "memory: unknown key 'bandwidth_mb_s'",
        "unit 1: cores: value: found '4'",
        "runtime 1: weight_copies: value: found -2",
    ]


def test_a_card_of_ones_own_completes_a_board(tmp_path: Path) -> None:
    (tmp_path / "devices").mkdir()
    text = (shelf_folder("devices") / "imx8m-plus.toml").read_text(encoding="utf-8")
    memory = "\n".join(
        f'{key} = {{ value = {value}, source = "measured by a test" }}'
        for key, value in (
            ("total_mib", 4096),
            ("reserve_mib", 300),
            ("bandwidth_gb_s", 16),
            ("sustained_fraction", 0.5),
        )
    )
    assert "[memory]" not in text
    (tmp_path / "devices" / "imx8m-plus.toml").write_text(f"{text}\n[memory]\n{memory}\n", encoding="utf-8")
    with pytest.raises(CardLacks):
        take_device("imx8mp")
    assert take_device("imx8mp", tmp_path).memory.usable_mib == 3796
    assert load_device(tmp_path / "devices" / "imx8m-plus.toml").id == "imx8m-plus"
    assert [card.id for card in all_cards(tmp_path)].count("imx8m-plus") == 1


def test_the_parts_of_a_card_refuse_what_makes_no_sense() -> None:
    with pytest.raises(InputError, match=r"ffn_hidden: found 1\.5, expected a whole number"):
        Multiples(Figure(8, "a test"), Figure(1.5, "a test"))
    with pytest.raises(InputError, match="total_mib: found 0, expected more than 0"):
        MemoryCard(total_mib=Figure(0, "a test"))
    with pytest.raises(InputError, match="source: found nothing"):
        Refusal("never measured", " ")


def test_what_was_timed_on_a_refused_unit_is_planned_on(tmp_path: Path) -> None:
    row = Measurement("vit-s-16", 1.0, 9.2, "tensorrt", "fp16", "MODE_15W_6CORE", 1, 1, 4.0, 4.4, "measured by a test")
    card = take_card("jetson-xavier-nx")
    assert [unit.id for unit in card.refused] == ["gpu"]
    timed = replace(card, measurement=(row,))
    assert timed.refused == ()
    assert [runtime.id for runtime in complete(timed).runtime] == ["onnxruntime-cpu", "tensorrt"]
    plan = make_plan(take_profile("vit-s-16"), complete(timed), take_target("tensorrt"))
    assert plan.unverified is None
    with pytest.raises(InputError, match="measurement 1: runtime: found 'tensorrt', expected one of onnxruntime-cpu"):
        replace(timed, runtime=card.runtime[:1])


def test_figures_carried_over_from_another_board_are_those_of_its_card() -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "carried_over.py"
    run = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    count = int(run.stdout.splitlines()[-1].split()[0])
    assert count >= 100
    # Whatever is carried over is so called: it is related, never measured.
    for card in CARDS:
        for runtime in card.runtime:
            if any(figure.source.startswith("as on a") for figure in figures(runtime.efficiency)):
                assert runtime.basis == "related"
