"""`edgeslim devices` and `plan` without a device, as typed. EDGESLIM_GOLDEN=write rewrites the golden texts."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from edgeslim.cli import main
from edgeslim.shelf import shelf_folder

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")
    return tmp_path


def typed(line: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> tuple[str, str]:
    assert main(shlex.split(line)) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("devices-list", "devices list"),
        ("devices-show-raspberry-pi-4b-4gb", "devices show rpi4"),
        ("devices-show-hailo-8", "devices show hailo-8"),
        ("plan-boards", "plan --min-score .9 --scene 10980x10980 --deadline-s 600"),
        ("plan-boards-modes", "plan --encoder vit-s-16 --latency-ms 5 --power-mode all --allow-unverified"),
    ],
)
def test_printed_text(name: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = typed(line, capsys)[0]
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("EDGESLIM_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    assert all(len(row) <= 100 for row in text.splitlines())


@pytest.mark.parametrize("columns", [80, 100, 160])
@pytest.mark.parametrize("line", ["", " --scene 5000x5000", " --power-mode all", " --scene 5000x5000 --power-mode all"])
def test_nothing_of_a_board_that_qualifies_is_cut(
    line: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = typed(f"plan --latency-ms 50{line}", capsys)[0].partition("What the others lack")[0]
    assert "…" not in text
    assert all(len(row) <= columns for row in text.splitlines())
    assert {"onnxruntime-cpu", "fp32", "jetson-orin-nano-super", "related"} <= set(text.split())
    assert ("MODE_10W_2CORE" in text) == ("all" in line)


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("line", ["devices list", "devices show jetson-agx-xavier", "plan --latency-ms 9"])
def test_nothing_runs_over_the_edge(
    line: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = typed(line, capsys)[0]
    assert all(len(row) <= columns for row in text.splitlines())
    assert "…" not in text


def test_the_list_for_machines_says_what_can_be_planned(capsys: pytest.CaptureFixture[str]) -> None:
    cards = {card["id"]: card for card in json.loads(typed("devices list --json", capsys)[0])["devices"]}
    assert len(cards) >= 40
    assert cards["raspberry-pi-5-8gb"]["plannable"] == {"verdict": "plannable", "of": ["cpu"]}
    assert cards["jetson-orin-nano-8gb"]["plannable"]["of"] == ["cpu", "gpu"]
    assert cards["jetson-agx-xavier"]["plannable"]["of"] == ["cpu"]
    assert cards["hailo-8"]["plannable"]["verdict"] == "refused"
    assert cards["voxl-2"]["plannable"]["verdict"] == "lacks"
    assert "memory.bandwidth_gb_s" in cards["voxl-2"]["plannable"]["of"]
    shown = json.loads(typed("devices show voxl-2 --json", capsys)[0])
    assert shown == cards["voxl-2"]


def test_an_unknown_board_lists_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = typed("devices show jetson-orin-nanno", capsys, 2)
    assert out == ""
    assert "jetson-orin-nano" in err
    assert len(err.splitlines()) == 1


def test_cards_of_ones_own_are_listed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "devices").mkdir()
    text = (shelf_folder("devices") / "raspberry-pi-5-8gb.toml").read_text(encoding="utf-8")
    text = text.replace('id = "raspberry-pi-5-8gb"', 'id = "mine"').replace(
        'aliases = ["raspberry-pi-5", "rpi5"]', "aliases = []"
    )
    (here / "devices" / "mine.toml").write_text(text.replace('family = "Raspberry Pi"\n', ""), encoding="utf-8")
    listed = typed("devices list --cards .", capsys)[0].splitlines()
    assert listed[[row.strip() for row in listed].index("Others") + 1].startswith("mine ")
    assert "mine" in typed("plan --cards . --latency-ms 20", capsys)[0]


def test_validate_says_ok_and_what_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    folder = shelf_folder("devices")
    paths = sorted(folder.glob("*.toml"))
    out, err = typed(f"devices validate {shlex.join(map(str, paths))}", capsys)
    assert err == ""
    lines = out.splitlines()
    assert sum(line.endswith(": OK") for line in lines) == len(paths)
    assert f"{folder}/raspberry-pi-5-8gb.toml: note: no watts and no energy are planned" in out
    assert f"{folder}/voxl-2.toml: note: nothing can be planned on it: it lacks memory.reserve_mib," in out
    assert f"{folder}/hailo-8.toml: note: unit npu is refused unasked: reaches" in out
    assert "no card of export/ runs on it" not in out


def test_validate_says_every_problem_in_a_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (shelf_folder("devices") / "raspberry-pi-5-8gb.toml").read_text(encoding="utf-8")
    good = text.replace("storage_mb_s", "# storage_mb_s").replace('id = "onnxruntime-cpu"', 'id = "mnn-cpu"')
    (here / "raspberry-pi-5-8gb.toml").write_text(good, encoding="utf-8")
    bad = text.replace("bandwidth_gb_s", "bandwidth_mb_s").replace("{ value = 4,", "{ value = -4,")
    (here / "bad.toml").write_text(bad.replace('id = "raspberry-pi-5-8gb"', 'id = "bad"'), encoding="utf-8")
    out, err = typed("devices validate raspberry-pi-5-8gb.toml bad.toml missing.toml", capsys, 1)
    lines = out.splitlines()
    assert lines[0] == "raspberry-pi-5-8gb.toml: OK"
    assert "runtime mnn-cpu: no card of export/ runs on it" in lines[1]
    assert "no start-up and no scene is timed in mnn-cpu: it lacks storage_mb_s" in lines[2]
    assert lines[-3].startswith("bad.toml: memory: unknown key 'bandwidth_mb_s', expected some of total_mib,")
    assert lines[-2].startswith("bad.toml: unit 1: cores: value: found -4, expected a finite number")
    assert lines[-1].startswith("missing.toml: cannot be read")
    assert err == "error: 2 of 3 cards cannot be used; mend what is listed\n"
    rows = json.loads(typed("devices validate bad.toml --json", capsys, 1)[0])["cards"]
    assert rows == [{"file": "bad.toml", "ok": False, "problems": lines[-3:-1], "warnings": []}]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("plan --min-score 1.5", "--min-score: found 1.5, expected a share of at most 1"),
        ("plan --min-score 0.99", "--min-score: found 0.99, expected at most 0.9724"),
        ("plan --deadline-s 60", "--deadline-s: found 60 without --scene, expected both"),
        ("plan --energy-j 60", "--energy-j: found 60 without --scene, expected both"),
        ("plan --uplink-days 60", "--uplink-days: found 60 without --uplink-kb-day, expected both"),
        ("plan --max-w -1", "--max-w: found -1, expected a number of more than 0"),
        ("plan --latency-ms 0", "--latency-ms: found 0, expected a number of more than 0"),
        ("plan --power-mode 15w", "unknown power mode '15w': expected one of 15W, "),
        ("plan --device rpi4 --power-mode fast", "unknown power mode 'fast' of raspberry-pi-4b-4gb: expected one of d"),
        ("plan -o here.json", "-o: found without --device, expected both: a plan is of one device"),
        ("plan --overwrite", "--overwrite: found without --device, expected both"),
    ],
)
def test_contradictions_are_one_line(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = typed(line, capsys, 2)
    assert out == ""
    assert err.startswith(f"error: {message}")
    assert len(err.splitlines()) == 1
    assert not list(Path.cwd().iterdir())


def test_a_board_that_draws_more_than_is_allowed_misses_it(capsys: pytest.CaptureFixture[str]) -> None:
    err = typed("plan --device rpi4 --max-w 5", capsys, 3)[1]
    assert "misses power 6.4 W > 5 (+28 %); raise --max-w" in err


def test_every_board_is_planned_without_a_device_and_none_is_written(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = typed("plan --json", capsys)
    found = json.loads(out)
    assert err == ""
    assert found["edgeslim_boards"] == 1
    assert found["encoder"] == "eurosat-rgb"
    assert {board["verdict"] for board in found["boards"]} == {"qualifies", "card lacks", "refused"}
    first = found["boards"][0]
    assert first["plan"]["device"] == first["id"]
    assert first["plan"]["width_multiplier" if "width_multiplier" in first["plan"] else "chosen"]
    assert not list(here.iterdir())


def test_nothing_that_qualifies_ends_with_3_after_what_each_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = typed("plan --latency-ms 0.01", capsys, 3)
    assert "What the others lack" in out
    assert "Boards that qualify" not in out
    assert err.startswith("error: no board of ")
    out, err = typed("plan --latency-ms 0.01 --json", capsys, 3)
    assert {board["plan"] for board in json.loads(out)["boards"]} == {None}


def test_boards_without_figures_and_refused_ones_say_so_alone(capsys: pytest.CaptureFixture[str]) -> None:
    err = typed("plan --device voxl-2", capsys, 1)[1]
    assert "lacks memory.reserve_mib, memory.bandwidth_gb_s, memory.sustained_fraction" in err
    assert "edgeslim calibrate" in err
    err = typed("plan --device hailo-8", capsys, 1)[1]
    assert "of its peak on ViTs at batch 1" in err
    assert "--allow-unverified" in err
    err = typed("plan --device hailo-8 --allow-unverified", capsys, 1)[1]
    assert "its card lacks multiples, memory.total_mib" in err
    out = typed("plan --device jetson-xavier-nx --target tensorrt --allow-unverified", capsys)[0]
    assert "unverified  measure before you rely on it: no transformer was published" in out


@pytest.mark.parametrize("line", ["plan --device rpi4", "plan --latency-ms 9", "devices list"])
def test_neither_torch_nor_rasterio_nor_numpy_is_imported(line: str, here: Path) -> None:
    code = (
        f"import sys; from edgeslim.cli import main; main({shlex.split(line)!r}); print('\\n' + ' '.join(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=here)
    modules = set(run.stdout.splitlines()[-1].split())
    assert "edgeslim.device_card" in modules
    assert not modules & {"torch", "rasterio", "numpy", "onnx", "onnxruntime"}
