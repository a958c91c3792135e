from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgeslim.cli import main
from edgeslim.manifest import read_manifest
from edgeslim.onboard.uplink.bundle import write_bundle
from tests.onboard.uplink.updates import everything, with_head


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    for number, name in enumerate(("old", "new"), 1):
        with_head(folder / name, number, 40_000)
    with_head(folder / "wrong", 3, 40_000, wrong_logit=0.5)
    write_bundle(folder / "new", folder / "new.tar.xz")
    assert main(["diff", str(folder / "old"), str(folder / "new"), "-o", str(folder / "update.delta")]) == 0
    assert main(["diff", str(folder / "old"), str(folder / "wrong"), "-o", str(folder / "wrong.delta")]) == 0
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "old", tmp_path / "artifact")
    for name in ("update.delta", "wrong.delta", "new.tar.xz"):
        shutil.copy(made / name, tmp_path / name)
    capsys.readouterr()
    return tmp_path


def test_a_delta_and_back_and_checked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", "update.delta", "--threads", "1"]) == 0
    captured = capsys.readouterr()
    assert "SYNTHETIC" in captured.err
    lines = captured.out.splitlines()
    assert lines[0].startswith("stands now: tiny head 2 ")
    assert "before, and by --rollback again: tiny head 1 " in lines[0]
    assert lines[1].startswith("golden tiles agree within 0.0001 (largest difference ")
    assert lines[2] == "artifact"
    assert main(["check"]) == 0
    assert "tiny head 2 agrees" in capsys.readouterr().out
    assert main(["apply", "update.delta"]) == 0
    assert capsys.readouterr().out.startswith("stands already: tiny head 2 ")
    assert main(["apply", "--rollback"]) == 0
    assert capsys.readouterr().out.startswith("stands now: tiny head 1 ")
    assert read_manifest(Path("artifact")).name == "tiny head 1"


def test_a_bundle_into_a_new_place_as_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", "new.tar.xz", "-o", "other/place", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["schema"], record["by"], record["name"], record["old_name"]) == (1, "bundle", "tiny head 2", None)
    assert sorted(record["check"]["batches"]) == ["1", "5"]
    assert main(["apply", "new.tar.xz", "-o", "third"]) == 0
    assert "nothing stood there before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "expected a bundle or a delta, or --rollback"),
        (["update.delta", "--rollback"], 2, "go forward, or back"),
        (["update.delta", "--threads", "0"], 2, "--threads"),
        (["none.delta"], 1, "cannot be read"),
        (["artifact/model.onnx"], 1, "neither a bundle nor a delta"),
        (["--rollback"], 1, "found nothing that what stands replaced"),
        (["update.delta", "-o", "elsewhere"], 1, "found no artifact"),
        (["wrong.delta"], 4, "do not fly"),
    ],
)
def test_what_cannot_be_is_one_line_and_changes_nothing(
    here: Path, arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(here)
    assert main(["apply", *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert said in captured.err
    assert everything(here) == before
    assert not (here / "elsewhere").exists()


def test_a_damaged_artifact_exits_five(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "artifact" / "weights.bin").write_bytes(b"x")
    assert main(["apply", "update.delta"]) == 5
    assert "damaged" in capsys.readouterr().err
