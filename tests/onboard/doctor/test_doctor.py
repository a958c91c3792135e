"""What `doctor` says of machines made of files. EDGESLIM_GOLDEN=write rewrites the golden texts."""

from __future__ import annotations

import getpass
import io
import json
import os
import platform
import re
import socket
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from edgeslim.cli import main
from edgeslim.device_card import DeviceCard, all_cards
from edgeslim.errors import InputError
from edgeslim.onboard.doctor.diagnosis import Diagnosis, diagnose
from edgeslim.onboard.doctor.libraries import RUNTIMES, Library, libraries
from edgeslim.onboard.doctor.power import ask_command
from edgeslim.onboard.doctor.tree import Tree, count_of
from edgeslim.report.doctor import print_diagnosis
from tests.onboard.doctor import machines

GOLDEN = Path(__file__).parents[2] / "golden"
LIBRARIES = (
    Library("onnxruntime", "onnx", "1.23.2", ("AzureExecutionProvider", "CPUExecutionProvider"), ""),
    Library("openvino", "openvino", "", (), "not installed"),
    Library("rasterio", "", "1.4.4", ("GDAL 3.10.3",), ""),
)


def nothing(command: tuple[str, ...]) -> str:
    return ""


def found(files: machines.Files, root: Path, **more: object) -> Diagnosis:
    arguments = {"machine": "aarch64", "ask": nothing, "look": lambda: LIBRARIES, "folder": root} | more
    return diagnose(machines.write(files, root), **arguments)  # type: ignore[arg-type]


def printed(diagnosis: Diagnosis, width: int = 90) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    print_diagnosis(diagnosis, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def steady(text: str) -> str:
    """Without what depends on the machine that runs the tests."""
    return re.sub(r"(?m)^(edgeslim|disk|Python)( +).*", r"\1\2...", text)


@pytest.mark.parametrize("name", machines.ALL)
def test_printed_text(name: str, tmp_path: Path) -> None:
    text = printed(found(machines.ALL[name], tmp_path))
    path = GOLDEN / f"doctor-{name}.txt"
    if os.environ.get("EDGESLIM_GOLDEN") == "write":
        path.write_text(steady(text), encoding="utf-8")
    assert steady(text) == path.read_text(encoding="utf-8")
    assert all(len(line) <= 90 and line == line.rstrip() for line in text.splitlines())
    for secret in ("deadbeef", "pi-in-the-sky", "SECRET", str(tmp_path), "/proc", "/sys"):
        assert secret not in text


def test_a_raspberry_pi_5_that_was_throttled(tmp_path: Path) -> None:
    it = found(machines.RASPBERRY_PI_5, tmp_path)
    assert (it.nearest.card, it.nearest.same) == ("raspberry-pi-5-8gb", True)
    assert "model 'Raspberry Pi 5 Model B Rev 1.0', 4x Cortex-A76 at 2.4 GHz" in it.nearest.why
    assert it.power.throttled == ("under-voltage", "throttled")
    assert it.power.before == ()  # both are now, too
    assert it.processor.features == ("neon", "fp16", "dotprod")
    assert it.processor.usable_cores == 4
    assert it.memory.limit_mib is None
    assert it.advice == (
        "throttled now (under-voltage, throttled): what is timed now is slower than it can be",
        "under-voltage: the supply or its cable is too weak for the board",
    )


@pytest.mark.parametrize(
    ("bits", "now"), [("0x0", ()), ("throttled=0xe0008", ("soft temperature limit",)), ("odd", ())]
)
def test_what_vcgencmd_says_where_there_is_no_file(bits: str, now: tuple[str, ...], tmp_path: Path) -> None:
    files = {name: text for name, text in machines.RASPBERRY_PI_5.items() if "get_throttled" not in name}
    it = found(files, tmp_path, ask=lambda command: bits if command == ("vcgencmd", "get_throttled") else "")
    assert it.power.throttled == now
    assert it.power.told is (bits != "odd")
    assert it.power.before == (("clock capped", "throttled") if now else ())


def test_a_jetson_in_another_mode_and_too_warm(tmp_path: Path) -> None:
    it = found(machines.JETSON_ORIN_NANO, tmp_path)
    assert it.nearest.card == "jetson-orin-nano-8gb"
    assert it.power.mode == "7W"
    assert it.system.jetpack.endswith("(Jetson Linux 36.4.3)")
    assert it.power.throttled == ("cpu-thermal at 100 °C, slowed from 99 °C on", "cpufreq-cpu0 slowed by the kernel")
    assert not any("cores" in line or "capped" in line for line in it.advice)  # as the card's 7W has it
    assert any("power mode 7W, where the card's default is 15W: plan with --power-mode 7W" in a for a in it.advice)
    asked = found(machines.JETSON_ORIN_NANO, tmp_path, ask=lambda command: "NV Power Mode: MAXN_SUPER\n2\n")
    assert asked.power.mode == "MAXN_SUPER"


def test_a_container_of_256_mib_and_half_a_core(tmp_path: Path) -> None:
    it = found(machines.SMALL_CONTAINER, tmp_path)
    assert it.system.board == "Dell Inc. PowerEdge R650"
    assert (it.memory.limit_mib, it.processor.quota_cores, it.processor.allowed) == (256, 0.5, 32)
    assert it.processor.usable_cores == 0.5
    assert (it.system.container, it.system.virtual) == ("docker", True)
    assert (it.nearest.card, it.nearest.same) == ("x86-64-host", False)
    assert any(line.endswith("plan with --memory-mib 256") for line in it.advice)
    assert it.power.before == ("package too warm 12 times",)
    assert it.power.throttled == ()


def test_groups_of_version_1(tmp_path: Path) -> None:
    it = found(machines.OLD_CONTAINER, tmp_path)
    assert (it.memory.limit_mib, it.processor.quota_cores) == (512, 1.5)


def test_a_board_without_a_card(tmp_path: Path) -> None:
    it = found(machines.KHADAS_EDGE2, tmp_path)
    assert [str(cluster) for cluster in it.processor.clusters] == [
        "4x Cortex-A76 at 2.4 GHz",
        "4x Cortex-A55 at 1.8 GHz",
    ]
    assert not it.nearest.same
    assert re.search(r"none: closest by processor is \S+ \(.*Cortex-A", printed(it, 200))
    assert any("governor powersave" in line for line in it.advice)


def test_of_cards_of_one_model_the_one_of_its_memory(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "devices" / "jetson-orin-nano-8gb.toml").read_text(encoding="utf-8")
    (tmp_path / "own" / "devices").mkdir(parents=True)
    small = text.replace('id = "jetson-orin-nano-8gb"', 'id = "tiny-orin"').replace(
        "total_mib = { value = 8192", "total_mib = { value = 4096"
    )
    small = re.sub(r"reserve_mib = \{ value = \d+", "reserve_mib = { value = 1000", small)
    small = re.sub(r"(?m)^aliases = .*", "aliases = []", small)
    (tmp_path / "own" / "devices" / "tiny-orin.toml").write_text(small, encoding="utf-8")
    files = machines.JETSON_ORIN_NANO | {"proc/meminfo": "MemTotal:        3700000 kB\n"}
    assert found(files, tmp_path / "m", cards=tmp_path / "own").nearest.card == "tiny-orin"
    assert (
        found(machines.JETSON_ORIN_NANO, tmp_path / "m", cards=tmp_path / "own").nearest.card == "jetson-orin-nano-8gb"
    )


MODELS = [(card, model) for card in all_cards() for model in card.models]


@pytest.mark.parametrize(("card", "model"), MODELS, ids=lambda value: getattr(value, "id", value))
def test_every_card_is_found_by_its_models(card: DeviceCard, model: str, tmp_path: Path) -> None:
    total = card.memory.total_mib
    memory = {} if total is None else {"proc/meminfo": f"MemTotal: {total.value * 0.95 * 1024:.0f} kB\n"}
    for text in (model, f"{model} Rev 1.1", f"{model.upper()} Board"):
        it = found({"proc/device-tree/model": text, **memory}, tmp_path)
        assert (it.nearest.card, it.nearest.same) == (card.id, True)
    assert it.advice == ()
    assert found({"proc/device-tree/model": f"{model}XY"}, tmp_path).nearest.card != card.id
    assert not found({"proc/device-tree/model": f"Another {model}"}, tmp_path).nearest.same


def test_the_boards_of_the_readme_have_models() -> None:
    assert {card.id for card, _ in MODELS} >= {"raspberry-pi-4b-4gb", "raspberry-pi-5-8gb", "jetson-orin-nano-8gb"}


def test_a_damaged_card_is_told_without_its_folder(tmp_path: Path) -> None:
    (tmp_path / "own" / "devices").mkdir(parents=True)
    (tmp_path / "own" / "devices" / "odd.toml").write_text("schema = ]")
    it = found(machines.RASPBERRY_PI_5, tmp_path / "m", cards=tmp_path / "own")
    assert it.nearest.card == "raspberry-pi-5-8gb"
    assert any(line.startswith("a card is left out: odd.toml: not valid TOML") for line in it.advice)
    assert str(tmp_path) not in printed(it)
    with pytest.raises(InputError, match="found no such folder"):
        found(machines.RASPBERRY_PI_5, tmp_path / "m", cards=tmp_path / "none")


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    it = found({}, tmp_path)
    assert it.nearest == found({}, tmp_path / "missing").nearest
    assert it.nearest.card == ""
    assert (it.processor.usable_cores, it.memory.usable_mib, it.power.told) == (None, None, False)
    assert printed(it).count("not known") >= 6


def test_a_machine_whose_files_are_no_files(tmp_path: Path) -> None:
    for name in {name for files in machines.ALL.values() for name in files}:
        (tmp_path / name).mkdir(parents=True)
    assert printed(found({}, tmp_path)).count("not known") >= 6


NAMES = sorted({name for files in machines.ALL.values() for name in files})


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(
        st.sampled_from(NAMES),
        st.one_of(
            st.binary(max_size=60), st.sampled_from([b"0", b"-1", b"max", b"9" * 30, b"0-99999", b"\xff\0\x1b[31m"])
        ),
        max_size=40,
    )
)
def test_whatever_the_files_hold_it_is_one_text(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("odd")
    for name, data in {**{n: t.encode() for n, t in machines.RASPBERRY_PI_5.items()}, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    it = diagnose(root, ask=lambda command: "\x1b[0m?", look=lambda: LIBRARIES, machine="aarch64")
    text = printed(it)
    assert all(character.isprintable() or character == "\n" for character in text)
    json.dumps(it.to_dict(), allow_nan=False)


def test_numbers_of_cores() -> None:
    assert [count_of(text) for text in ("0", "0-3", "0-1,4,6-7", "", "3-", "a", "0-3 ")] == [
        1,
        4,
        5,
        None,
        None,
        None,
        None,
    ]


def test_a_tree_stays_below_its_root(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("no")
    (tmp_path / "root").mkdir()
    assert Tree(tmp_path / "root").text("/../secret") == ""


CRASH = "import os, signal, sys\nif sys.argv[1] == 'onnxruntime': os.kill(os.getpid(), signal.SIGILL)\n"


def test_a_runtime_that_crashes_on_import_is_told() -> None:
    found = {one.name: one for one in libraries(program=CRASH + "print('null')")}
    assert found["onnxruntime"].trouble.startswith(
        "its import crashes (SIGILL, as of a wheel that was built for another"
    )
    assert found["openvino"].trouble == "not installed"


def test_a_runtime_that_never_ends_its_import_is_given_up() -> None:
    before = time.monotonic()
    found = libraries(limit_s=0.5, program="import time; time.sleep(60)")
    assert {one.trouble for one in found} == {"its import did not end within the time allowed"}
    assert time.monotonic() - before < 20


def test_a_runtime_whose_import_fails_is_told_without_paths() -> None:
    program = "raise ImportError('/opt/secret/lib/libfoo.so: undefined symbol: bar')"
    assert libraries(program=program)[0].trouble == "its import fails (ImportError: libfoo.so undefined symbol: bar)"
    assert libraries(program="print(7)")[0].trouble.startswith("its import fails")


def test_nothing_installed_is_advised(tmp_path: Path) -> None:
    none = tuple(Library(name, "x", "", (), "not installed") for name in (*RUNTIMES, "rasterio"))
    it = found(machines.RASPBERRY_PI_5, tmp_path, look=lambda: none)
    assert any(line.startswith("no runtime works here: pip install 'edgeslim[onnx]'") for line in it.advice)
    assert any(line.startswith("rasterio does not work here") for line in it.advice)


def test_commands_have_a_limit_and_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask_command(("edgeslim-has-no-such-command",)) == ""
    assert ask_command((sys.executable, "-c", "print(1)")).strip() == "1"
    assert ask_command((sys.executable, "-c", "print(1); raise SystemExit(1)")) == ""
    monkeypatch.setattr("edgeslim.onboard.doctor.power._LIMIT_S", 0.2)
    assert ask_command((sys.executable, "-c", "import time; time.sleep(60)")) == ""


def test_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert platform.python_version() in text
    assert re.search(r"(?m)^nearest card +\S", text)
    for secret in (socket.gethostname(), str(Path.cwd()), str(Path.home()) + "/"):
        assert secret not in text
    assert not re.search(rf"\b{re.escape(getpass.getuser())}\b", text)
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == 1
