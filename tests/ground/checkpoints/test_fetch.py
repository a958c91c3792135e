"""Hubs: a checkpoint is fetched only when that is asked for, whole and the right one, or not at all."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from edgeslim.cli import main
from edgeslim.cli.encoder import encoder_of
from edgeslim.errors import InputError, UnknownName
from edgeslim.families.hub import HubFile, all_hubs, asked_of_hub
from edgeslim.ground.checkpoints.checkpoint import Checkpoint, write_checkpoint
from tests.ground.conftest import TINY, random_vit


class Answers(BaseHTTPRequestHandler):
    """Serves what it was given; of a torn file fewer bytes than it announces."""

    def __init__(self, files: dict[str, bytes], asked: list[str], *arguments: object) -> None:
        self.files, self.asked = files, asked
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.asked.append(name)
        if name not in self.files:
            self.send_error(404)
            return
        data = self.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if name.startswith("torn") else data)

    def log_message(self, *_: object) -> None:
        return


class Place:
    def __init__(self, port: int, files: dict[str, bytes], asked: list[str], cards: Path, cache: Path) -> None:
        self.port, self.files, self.asked, self.cards, self.cache = port, files, asked, cards, cache

    def kept(self) -> list[str]:
        return sorted(path.name for path in self.cache.rglob("*") if path.is_file())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    write_checkpoint(Checkpoint(TINY, random_vit(TINY).state_dict(), {}), tmp_path / "a.safetensors", {}, torch.float32)
    whole = (tmp_path / "a.safetensors").read_bytes()
    files = {"whole.safetensors": whole, "torn.safetensors": whole, "page.pth": b"<html>sign in</html>"}
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Answers, files, asked))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    (tmp_path / "cards" / "hubs").mkdir(parents=True)
    digest = hashlib.sha256(whole).hexdigest()
    rows = [
        ("right", "whole.safetensors", digest[:8]),
        ("unhashed", "whole.safetensors", ""),
        ("other", "whole.safetensors", "00" + digest[2:10]),
        ("torn", "torn.safetensors", ""),
        ("gone", "none.safetensors", ""),
        ("page", "page.pth", ""),
    ]
    text = 'schema = 1\nid = "mine"\nname = "Mine"\nsource = "this test"\n'
    for name, file, sha in rows:
        text += f'[[file]]\nname = "{name}"\nurl = "http://127.0.0.1:{server.server_port}/{file}"\nsha256 = "{sha}"\n'
        text += 'licence = "Apache-2.0"\n'
    (tmp_path / "cards" / "hubs" / "mine.toml").write_text(text)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    yield Place(server.server_port, files, asked, tmp_path / "cards", tmp_path / "cache")
    server.shutdown()
    thread.join()
    server.server_close()


def fails(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    capsys.readouterr()
    assert main(words) in (1, 2)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    return line


def test_an_encoder_of_a_hub_is_fetched_when_asked_and_only_then(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    cards = ["--cards", str(place.cards)]
    slim = ["slim", "--encoder", "mine:right", "-w", "0.5", *cards]
    line = fails(capsys, slim)
    assert "was not fetched yet; `edgeslim encoders fetch mine:right` takes it from http://127.0.0.1" in line
    assert place.asked == []  # naming it is not asking for it
    assert main(["encoders", "fetch", "mine:right", *cards]) == 0
    said = capsys.readouterr()
    assert hashlib.sha256(place.files["whole.safetensors"]).hexdigest() in said.err
    assert said.out.strip().endswith("right.safetensors")
    assert place.kept() == ["right.safetensors"]
    assert main(slim) == 0
    found = encoder_of("mine:right", place.cards)
    assert (found.id, found.licence, found.architecture) == ("mine:right", "Apache-2.0", TINY)
    # A plan remembers the name, and slim finds the file by it.
    assert main(["plan", "--device", "rpi4", "--encoder", "mine:right", *cards]) == 0
    assert main(["slim", "plan.json", "-o", "planned.safetensors", *cards]) == 0
    assert main(["encoders", "fetch", "mine:right", *cards]) == 0
    assert place.asked == ["whole.safetensors"]  # what lies there is not fetched again
    capsys.readouterr()
    assert main(["encoders", "hubs", *cards]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[-1] for row in rows if row.startswith(("mine:right", "mine:gone"))] == ["yes", "Apache-2.0"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("other", "found another file than the card's"),
        ("torn", "not a whole safetensors file"),
        ("page", "not a plain state dict"),
        ("gone", "found 404"),
    ],
)
def test_what_is_not_the_checkpoint_is_not_kept(
    place: Place, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    assert said in fails(capsys, ["encoders", "fetch", f"mine:{name}", "--cards", str(place.cards)])
    assert place.kept() == []


def test_without_a_network_a_line_says_what_to_do(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    card = place.cards / "hubs" / "mine.toml"
    card.write_text(card.read_text().replace(f":{place.port}/", ":9/"))
    line = fails(capsys, ["encoders", "fetch", "mine:right", "--cards", str(place.cards)])
    assert "127.0.0.1 cannot be reached" in line
    assert "where there is a network, and give the file's path instead" in line
    assert place.kept() == []


def test_a_cache_that_cannot_be_written(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    line = fails(capsys, ["encoders", "fetch", "mine:right", "--cards", str(place.cards)])
    assert "cannot be written" in line


def test_names_that_no_hub_has(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert "found no hub 'elsewhere'" in fails(capsys, ["plan", "--device", "rpi4", "--encoder", "elsewhere:vit"])
    assert "found no hub of that name" in fails(capsys, ["encoders", "fetch", "vit"])
    with pytest.raises(UnknownName, match="right"):
        asked_of_hub("mine:rigth", place.cards)
    with pytest.raises(UnknownName):
        asked_of_hub("timm:../../etc/passwd")


def test_the_hubs_that_ship() -> None:
    hubs = {hub.id: hub for hub in all_hubs()}
    assert hubs.keys() == {"timm", "torchgeo"}
    names = [file.name for file in hubs["torchgeo"].file]
    assert len(names) == len(set(names)) > 30
    asked = asked_of_hub("torchgeo:DOFABase16_Weights.DOFA_MAE:B04,B03,B02")
    assert asked is not None
    assert (asked.made_for, asked.file.sha256) == ("B04,B03,B02", "a0275954")
    timm = asked_of_hub("timm:vit_small_patch16_224.augreg_in21k")
    assert timm is not None
    assert (
        timm.file.url == "https://huggingface.co/timm/vit_small_patch16_224.augreg_in21k/resolve/main/model.safetensors"
    )
    assert timm.path.name == "vit_small_patch16_224.augreg_in21k.safetensors"


@pytest.mark.parametrize(
    ("url", "sha", "said"),
    [
        ("http://example.org/a.pth", "", "begins with https"),
        ("file:///etc/passwd.pth", "", "begins with https"),
        ("https://example.org/a", "", "suffix"),
        ("https://example.org/a.pth", "xyz", "hex SHA-256"),
    ],
)
def test_cards_of_hubs_that_are_wrong(url: str, sha: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        HubFile("a", url, sha)
