from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from edgeslim.cli import main
from edgeslim.onboard.uplink.bundle import write_bundle
from tests.onboard.uplink.updates import seal, with_head


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("old", "new"), 1):
        with_head(tmp_path / name, number, 40_000)
    return tmp_path


def test_a_table_of_what_changed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "old", "new"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert lines[0].split() == ["File", "Bytes", "New", "among", "them"]
    assert [line.split()[0] for line in lines[1:5]] == ["manifest.json", "golden.npz", "model.onnx", "weights.bin"]
    weights = lines[4].split()
    assert weights[1] == f"{(here / 'new' / 'weights.bin').stat().st_size:,}"
    assert 60 <= int(weights[2]) < 300
    assert lines[5].startswith("tiny head 1 ")
    assert " -> tiny head 2 " in lines[5]
    assert lines[6] == f"update.delta  {(here / 'update.delta').stat().st_size / 1000:.1f} KB"


def test_json_and_no_file_overwritten_unasked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "old", "new", "-o", "a/b.delta", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["schema"], record["delta"], record["new"]["name"]) == (1, "a/b.delta", "tiny head 2")
    assert record["bytes"] == (here / "a" / "b.delta").stat().st_size
    assert [f["name"] for f in record["files"] if f["same"]] == []
    whole = (here / "a" / "b.delta").read_bytes()
    assert main(["diff", "new", "old", "-o", "a/b.delta"]) == 1
    assert "exists already" in capsys.readouterr().err
    assert (here / "a" / "b.delta").read_bytes() == whole
    assert main(["diff", "new", "old", "-o", "a/b.delta", "--overwrite"]) == 0
    assert (here / "a" / "b.delta").read_bytes() != whole


def test_unchanged_and_removed_files_are_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "new" / "extra.txt").write_bytes(b"x" * 1000)
    (here / "old" / "gone.txt").write_bytes(b"x")
    (here / "new" / "weights.bin").write_bytes((here / "old" / "weights.bin").read_bytes())
    seal(here / "new")
    seal(here / "old")
    assert main(["diff", "old", "new"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert rows["weights.bin"][1] == "unchanged"
    assert rows["extra.txt"] == ["1,000", "1,000"]
    assert rows["gone.txt"] == ["0", "removed"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["old", "old"], "nothing to send"),
        (["old", "none"], "edgeslim export"),
        (["old", "new", "-o", "old"], "folder"),
    ],
)
def test_what_cannot_be_is_one_line(
    here: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert said in captured.err
    assert sorted(p.name for p in here.iterdir()) == ["new", "old"]


@pytest.mark.parametrize("artifact", ["old", "new"])
def test_an_artifact_holds_its_own_files_alone(here: Path, artifact: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path.name for path in (here / artifact).iterdir())
    assert main(["diff", "old", "new", "-o", f"{artifact}/x.delta"]) == 2
    assert f"-o {artifact}/x.delta: lies in {artifact}, which holds the artifact alone" in capsys.readouterr().err
    assert sorted(path.name for path in (here / artifact).iterdir()) == before


def test_the_bundle_that_stands_on_board_is_not_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bundle(here / "old", here / "old.tar.xz")
    whole = (here / "old.tar.xz").read_bytes()
    assert main(["diff", "old.tar.xz", "new", "-o", "./old.tar.xz", "--overwrite"]) == 2
    assert "-o old.tar.xz: is old.tar.xz itself, which would be lost" in capsys.readouterr().err
    assert (here / "old.tar.xz").read_bytes() == whole


@pytest.mark.parametrize("at", ["write_bytes", "mkdtemp"])
def test_a_full_disk_for_what_is_unpacked_is_one_line(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], at: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    write_bundle(here / "old", here / "old.tar.xz")
    monkeypatch.setattr(Path if at == "write_bytes" else tempfile, at, full)
    assert main(["diff", "old.tar.xz", "new"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert "No space left on device" in said
    assert not (here / "update.delta").exists()


def test_a_link_to_itself_is_a_name_like_another(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "loop").symlink_to("loop")
    assert main(["diff", "old", "new", "-o", "loop"]) == 0
    assert main(["diff", "old", "new", "-o", "old/x.delta"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_a_link_names_is_replaced(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "sent").mkdir()
    (here / "sent" / "one.delta").write_text("mine")
    (here / "update.delta").symlink_to("sent/one.delta")
    assert main(["diff", "old", "new"]) == 1
    assert "exists already" in capsys.readouterr().err
    assert (here / "sent" / "one.delta").read_text() == "mine"
    assert main(["diff", "old", "new", "--overwrite"]) == 0
    assert (here / "update.delta").readlink() == Path("sent/one.delta")
    assert (here / "sent" / "one.delta").read_bytes().startswith(b"edgeslim delta 1")
    assert [path.name for path in (here / "sent").iterdir()] == ["one.delta"]
