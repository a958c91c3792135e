"""Whatever a file says: one line at most, a documented exit code, soon, in little memory, nothing half-written.

Deterministic and short by default. EDGESLIM_FUZZ_EXAMPLES=20000 runs that many cases a test, seeded anew each time;
EDGESLIM_FUZZ_KEEP=DIR goes on after a finding and keeps the files of each kind there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from edgeslim.manifest import GOLDEN_NAME, MANIFEST_NAME, _seal
from edgeslim.onboard.classify import ClassifyOptions, SceneOptions, classify_scene
from edgeslim.onboard.journal import JOURNAL_NAME, read_records
from edgeslim.onboard.unfinished import Unfinished
from edgeslim.shelf import read_toml, shelf_folder
from tests.onboard.artifacts import UTM, make_scene, smooth
from tests.onboard.fuzz_server import Outcome, Server
from tests.onboard.mutate import (
    ODD_NUMBERS,
    ODD_TEXTS,
    as_toml,
    damaged_bytes,
    damaged_data,
    damaged_npz,
    damaged_tiff,
)

SECONDS = 20
"""A case that takes longer hangs: whole ones take a tenth of a second, and CI's cores are shared."""
MIB = 1000
"""Less than a gigabyte."""
LONGEST_LINE = 1500
"""Characters of an error line: a message quotes what it found, not a whole file."""
EXAMPLES = int(os.environ.get("EDGESLIM_FUZZ_EXAMPLES", "0"))
KEEP = os.environ.get("EDGESLIM_FUZZ_KEEP")
STOPPED = 124
"""Exit code of a run that its deadline stopped."""
EXIT_CODES = (*range(6), STOPPED)
"""0 done, 1 error, 2 usage, 3 nothing fits, 4 parity failed, 5 results untrusted."""


def fuzz(examples: int) -> settings:
    """So many examples in CI, always the same; as many as asked in a campaign, others each time."""
    return settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        phases=[Phase.generate],  # shrinking a case that hangs would take an hour
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@dataclass
class Bench:
    """Where cases are laid out and run."""

    server: Server
    folder: Path
    artifact: Path
    counted: int = 0
    findings: int = 0

    def fresh(self) -> Path:
        """An empty folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        return self.folder

    def hold(self, *argv: str) -> None:
        """Run a command in the folder and hold it to the law; what fails must fail in a fresh process, too."""
        argv = tuple(argv)
        before = set(os.listdir(self.folder))
        self.counted += 1
        if not fault(self.server.run(list(argv), self.folder, SECONDS), self.folder, before):
            return
        for name in set(os.listdir(self.folder)) - before:
            shutil.rmtree(self.folder / name) if (self.folder / name).is_dir() else (self.folder / name).unlink()
        with Server() as alone:
            outcome = alone.run(list(argv), self.folder, 2 * SECONDS)
        if not (found := fault(outcome, self.folder, before)):
            return
        if KEEP is None:
            pytest.fail(f"edgeslim {' '.join(argv)[:300]}\n{found}", pytrace=False)
        self.findings += 1
        kind = Path(KEEP) / hashlib.sha256(re.sub(r"\d+", "0", found.strip().splitlines()[-1]).encode()).hexdigest()[:8]
        if len(list(kind.glob("*"))) < 3:
            kept = kind / str(self.findings)
            kept.mkdir(parents=True)
            subprocess.run(["cp", "-a", str(self.folder), str(kept / "files")], check=True)  # pipes and sockets, too
            (kept / "found.txt").write_text(f"{json.dumps(argv)}\n{found}\n", encoding="utf-8", errors="replace")


def fault(outcome: Outcome, folder: Path, before: set[str]) -> str | None:
    """What of the law an outcome breaks; None: nothing."""
    if outcome.trace:
        return outcome.trace
    if outcome.code not in EXIT_CODES:
        return f"exit code {outcome.code}"
    if outcome.mib > MIB:
        return f"took {outcome.mib:.0f} MiB"
    lines = outcome.stderr.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    failed = outcome.code not in (0, STOPPED)
    if len(errors) != failed or any(not re.match("error: |warning: |stopped ", line) for line in lines):
        return f"exit code {outcome.code} and these lines on stderr:\n{outcome.stderr[:3000]}"
    if any(len(line) > LONGEST_LINE for line in lines):
        return f"a line of {max(map(len, lines))} characters: {lines[0][:300]}"
    if strange := [c for c in outcome.stdout + outcome.stderr if not c.isprintable() and c != "\n"]:
        return f"control character {strange[0]!r} in: {outcome.stdout[:1000]}{outcome.stderr[:1000]}"
    if outcome.code == 0 and outcome.stdout.startswith("{"):
        json.loads(outcome.stdout, parse_constant=lambda name: pytest.fail(f"{name} in the JSON it printed"))
    new = set(os.listdir(folder)) - before
    if outcome.code and new - {"out"}:
        return f"left {sorted(new)} behind"
    if outcome.code and "out" in new and (left := os.listdir(folder / "out")) not in ([], ["unfinished"]):
        return f"half-written results: {sorted(left)}"
    return None


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, artifact: Path) -> Iterator[Bench]:
    with Server() as server:
        bench = Bench(server, tmp_path_factory.mktemp("fuzz") / "case", artifact)
        yield bench
    print(f"\nfuzz: {bench.counted} cases")
    assert not bench.findings, f"{bench.findings} findings, kept in {KEEP}"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Whole scenes of many layouts, each a few hundred to a few thousand bytes."""
    folder = tmp_path_factory.mktemp("scenes")
    values = smooth(40, 37)
    small = (values // 11).clip(1, 255).astype(np.uint8)
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    holes = values.astype(np.float32)
    holes[:, 3:9, 4:20] = np.nan
    mask = np.full((40, 37), 255, np.uint8)
    mask[:9] = 0
    corners = [GroundControlPoint(r, c, 6e5 + 10 * c, 4.8e6 - 10 * r) for r in (0, 40) for c in (0, 37)]
    kinds: dict[str, dict[str, Any]] = {
        "deflate": {**tiled, "compress": "deflate", "predictor": 2, "nodata": 7},
        "strips": {"compress": "lzw", "blockysize": 4},
        "plain": {"nodata": 0, "mask": mask},
        "big": {**tiled, "BIGTIFF": "YES", "compress": "zstd"},
        "planes": {**tiled, "interleave": "band", "compress": "deflate", "scale": (1e-4, -0.1)},
        "swapped": {"ENDIANNESS": "BIG", "compress": "packbits"},
        "sparse": {**tiled, "SPARSE_OK": True},
    }
    for name, options in kinds.items():
        make_scene(folder / name, values, **options)
    make_scene(folder / "jpeg", small, compress="jpeg", photometric="ycbcr", **tiled)
    make_scene(folder / "float", holes, compress="lerc", **tiled)

    turned = UTM * Affine.rotation(30)
    make_scene(folder / "rotated", values.astype(np.float64), transform=turned, predictor=3, compress="lzw")
    make_scene(folder / "gcps", values, crs=None, transform=None, compress="deflate")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(folder / "gcps", "r+") as dataset:
            dataset.gcps = (corners, "EPSG:32630")
    with rasterio.open(folder / "deflate", "r+") as dataset:
        dataset.build_overviews([2])
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".xml"}


def classify(bench: Bench, scene: str = "scene.tif", artifact: str | None = None, flags: tuple[str, ...] = ()) -> None:
    """A header may promise a scene of a year's work: the deadline ends it, which is no hang."""
    where = ("-o", "out", "--artifact", artifact or str(bench.artifact))
    bench.hold("classify", scene, *where, "--accept-gsd", "--json", "--deadline-s", "3", *flags)


SCENES = ("deflate", "strips", "plain", "big", "planes", "swapped", "sparse", "jpeg", "float", "rotated", "gcps")


def flags_of(name: str) -> tuple[str, ...]:
    """An 8-bit picture does not say what its grey levels mean."""
    return ("--scale", "0.001") if name == "jpeg" else ()


def test_whole_scenes_pass(bench: Bench, scenes: dict[str, bytes]) -> None:
    """Or the fuzz below would look at refusals only."""
    for name in SCENES:
        (bench.fresh() / "scene.tif").write_bytes(scenes[name])
        argv = [
            "classify",
            "scene.tif",
            "-o",
            "out",
            "--artifact",
            str(bench.artifact),
            "--accept-gsd",
            *flags_of(name),
        ]
        outcome = bench.server.run(argv, bench.folder, SECONDS)
        assert (outcome.code, outcome.trace) == (0, ""), (name, outcome)


@fuzz(250)
@given(st.data())
def test_damaged_headers(bench: Bench, scenes: dict[str, bytes], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(SCENES))
    (bench.fresh() / "scene.tif").write_bytes(data.draw(damaged_tiff(scenes[name])))
    classify(bench, flags=flags_of(name))


@fuzz(150)
@given(st.data())
def test_damaged_scenes(bench: Bench, scenes: dict[str, bytes], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(SCENES))
    (bench.fresh() / "scene.tif").write_bytes(data.draw(damaged_bytes(scenes[name])))
    classify(bench, flags=flags_of(name))


AUX = b"""<PAMDataset><SRS>EPSG:32630</SRS><GeoTransform> 6e5, 10, 0, 48e5, 0, -10</GeoTransform>
<Metadata><MDI key="AREA_OR_POINT">Point</MDI></Metadata><PAMRasterBand band="1"><NoDataValue>5</NoDataValue>
<Description>B04</Description><Scale>0.0001</Scale><Offset>-0.1</Offset><ColorInterp>Red</ColorInterp>
</PAMRasterBand></PAMDataset>"""
VRT = b"""<VRTDataset rasterXSize="37" rasterYSize="40"><SRS>EPSG:32630</SRS>
<GeoTransform>6e5,10,0,48e5,0,-10</GeoTransform>
<VRTRasterBand dataType="UInt16" band="1"><NoDataValue>0</NoDataValue><ColorInterp>Red</ColorInterp>
<SimpleSource><SourceFilename relativeToVRT="1">scene.tif</SourceFilename><SourceBand>1</SourceBand>
<SrcRect xOff="0" yOff="0" xSize="37" ySize="40"/><DstRect xOff="0" yOff="0" xSize="37" ySize="40"/></SimpleSource>
</VRTRasterBand><VRTRasterBand dataType="UInt16" band="2"><ColorInterp>Green</ColorInterp><ComplexSource>
<SourceFilename relativeToVRT="1">scene.tif</SourceFilename><SourceBand>2</SourceBand><ScaleRatio>2</ScaleRatio>
<LUT>0:0,10000:20000</LUT></ComplexSource></VRTRasterBand><VRTRasterBand dataType="UInt16" band="3">
<ColorInterp>Blue</ColorInterp><SimpleSource><SourceFilename relativeToVRT="1">scene.tif</SourceFilename>
<SourceBand>3</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"""


@st.composite
def damaged_xml(draw: Any, whole: bytes) -> bytes:
    """Numbers, texts and elements replaced, then now and then bytes."""
    parts = re.split(rb"(\d[\d.e]*|scene\.tif|UInt16|SimpleSource|Red|EPSG)", whole)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(parts) // 2 - 1)) * 2 + 1
        numbers = st.sampled_from(ODD_NUMBERS).map(str)
        texts = ("scene.vrt", "/dev/zero", "/vsicurl/http://127.0.0.1:9/x", "Float64", "CInt16", "KernelFilteredSource")
        parts[at] = draw(st.one_of(numbers, st.sampled_from(texts), st.just(""))).encode()
    text = b"".join(parts)
    return draw(st.one_of(st.just(text), damaged_bytes(text)))


@fuzz(80)
@given(st.data())
def test_damaged_side_files(bench: Bench, scenes: dict[str, bytes], data: st.DataObject) -> None:
    folder, scene = bench.fresh(), "scene.tif"
    (folder / scene).write_bytes(scenes["deflate"])
    kind = data.draw(st.sampled_from(("vrt", "vrt", "aux.xml", "msk", "ovr", "tfw", "IMD")))
    if kind == "vrt":
        scene = "scene.vrt"
        (folder / scene).write_bytes(data.draw(damaged_xml(VRT)))
    elif kind == "aux.xml":
        (folder / "scene.tif.aux.xml").write_bytes(data.draw(damaged_xml(AUX)))
    elif kind in ("msk", "ovr"):
        (folder / f"scene.tif.{kind}").write_bytes(data.draw(damaged_tiff(scenes["plain"])))
    else:
        (folder / f"scene.{kind}").write_bytes(data.draw(damaged_bytes(b"10.0\n0\n0\n-10\n600000\n4800000\n")))
    classify(bench, scene)


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    text = json.dumps({**manifest, "sha256": _seal(manifest)})
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8", errors="surrogatepass")


def copy_artifact(bench: Bench) -> tuple[Path, dict[str, Any]]:
    folder = bench.fresh() / "artifact"
    shutil.copytree(bench.artifact, folder)
    manifest = json.loads((folder / MANIFEST_NAME).read_bytes())
    manifest.pop("sha256")
    return folder, manifest


def fly(bench: Bench, scenes: dict[str, bytes], classifying: bool) -> None:
    """Check the artifact in the folder, or classify with it."""
    if classifying:
        (bench.folder / "scene.tif").write_bytes(scenes["strips"])
        classify(bench, artifact="artifact")
    else:
        bench.hold("check", "artifact", "--json")


@fuzz(250)
@given(st.data())
def test_damaged_manifests_with_a_right_seal(bench: Bench, scenes: dict[str, bytes], data: st.DataObject) -> None:
    folder, manifest = copy_artifact(bench)
    seal(folder, data.draw(damaged_data(manifest)))
    fly(bench, scenes, data.draw(st.booleans()))


@fuzz(40)
@given(st.data())
def test_damaged_manifests(bench: Bench, data: st.DataObject) -> None:
    folder, _ = copy_artifact(bench)
    path = folder / MANIFEST_NAME
    path.write_bytes(data.draw(damaged_bytes(path.read_bytes())))
    bench.hold("check", "artifact")


def reseal(folder: Path, manifest: dict[str, Any]) -> None:
    for name in manifest["files"]:
        manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    seal(folder, manifest)


@fuzz(120)
@given(st.data())
def test_damaged_golden_tiles_with_a_right_seal(bench: Bench, scenes: dict[str, bytes], data: st.DataObject) -> None:
    folder, manifest = copy_artifact(bench)
    with np.load(folder / GOLDEN_NAME) as arrays:
        tiles, logits = arrays["tiles"], arrays["logits"]
    (folder / GOLDEN_NAME).write_bytes(data.draw(damaged_npz(tiles, logits)))
    reseal(folder, manifest)
    fly(bench, scenes, data.draw(st.booleans()))


@fuzz(120)
@given(st.data())
def test_damaged_networks_with_a_right_seal(bench: Bench, scenes: dict[str, bytes], data: st.DataObject) -> None:
    folder, manifest = copy_artifact(bench)
    path = folder / "model.onnx"
    path.write_bytes(data.draw(damaged_bytes(path.read_bytes())))
    reseal(folder, manifest)
    fly(bench, scenes, data.draw(st.booleans()))


CARDS = {"devices": "raspberry-pi-5-8gb", "profiles": "vit-s-16", "export": "onnx"}


def plan(bench: Bench) -> None:
    bench.hold(
        "plan", "--device", CARDS["devices"], "--encoder", CARDS["profiles"], "--cards", "cards", "-o", "out", "--json"
    )


def lay_card(bench: Bench, shelf: str, text: bytes) -> None:
    folder = bench.fresh() / "cards" / shelf
    folder.mkdir(parents=True)
    (folder / f"{CARDS[shelf]}.toml").write_bytes(text)


@fuzz(250)
@given(st.data(), st.sampled_from(sorted(CARDS)))
def test_cards_of_wrong_values(bench: Bench, data: st.DataObject, shelf: str) -> None:
    # The embedded encoder's card has every key; under another's name its weights are not looked for.
    source = "eurosat-rgb" if shelf == "profiles" and data.draw(st.booleans()) else CARDS[shelf]
    card = {**read_toml(shelf_folder(shelf) / f"{source}.toml"), "id": CARDS[shelf]}
    text = as_toml(data.draw(damaged_data(card, null=False)))
    lay_card(bench, shelf, text.encode("utf-8", "surrogatepass"))
    plan(bench)


@fuzz(80)
@given(st.data(), st.sampled_from(sorted(CARDS)))
def test_damaged_cards(bench: Bench, data: st.DataObject, shelf: str) -> None:
    whole = (shelf_folder(shelf) / f"{CARDS[shelf]}.toml").read_bytes()
    lay_card(bench, shelf, data.draw(damaged_bytes(whole)))
    plan(bench)


DEEP = (
    b"a = " + b"[" * 100_000,
    b"a = " + b"{a=" * 100_000,
    b"a." * 100_000 + b"a = 1",
    b"[" + b"a." * 100_000 + b"a]",
    b"a = 1" + b"0" * 10_000,
    b"a = " + b"9" * 400 + b".0",
    b"id = 1979-05-27T07:32:00Z",
    b"\xff\xfe\x00",
    b"\x00" * 4096,
    b"",
    b'"a".' * 100_000 + b"a = 1",
    b'id = "' + b"x" * 4_000_000 + b'"',
    b'id = "' + b"x" * 5_000_000 + b'"',
)


@pytest.mark.parametrize("shelf", sorted(CARDS))
@pytest.mark.parametrize("text", DEEP, ids=range(len(DEEP)))
def test_cards_that_ask_too_much_of_a_parser(bench: Bench, shelf: str, text: bytes) -> None:
    lay_card(bench, shelf, text)
    plan(bench)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("depth", [900, 100_000])
def test_deep_manifests(bench: Bench, opening: str, depth: int) -> None:
    folder, _ = copy_artifact(bench)
    (folder / MANIFEST_NAME).write_text(opening * depth, encoding="ascii")
    bench.hold("check", "artifact")
    closing = "]" if opening == "[" else "}"
    (folder / MANIFEST_NAME).write_text(opening * depth + "0" + closing * depth, encoding="ascii")
    bench.hold("check", "artifact")


PLACES = (
    "scene.tif",
    "artifact",
    "artifact/manifest.json",
    "artifact/golden.npz",
    "artifact/model.onnx",
    "cards",
    "card",
)
THINGS = ("nothing", "empty", "folder", "loop", "dangling", "fifo", "zero", "device", "socket")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("thing", THINGS)
def test_things_that_are_no_files(bench: Bench, scenes: dict[str, bytes], place: str, thing: str) -> None:
    copy_artifact(bench)
    (bench.folder / "scene.tif").write_bytes(scenes["strips"])
    lay = bench.folder / (f"cards/devices/{CARDS['devices']}.toml" if place == "card" else place)
    (bench.folder / "cards" / "devices").mkdir(parents=True)
    shutil.rmtree(lay) if lay.is_dir() else lay.unlink(missing_ok=True)
    if thing == "empty":
        lay.touch()
    elif thing == "folder":
        lay.mkdir()
    elif thing == "loop":
        lay.symlink_to(lay.name)
    elif thing == "dangling":
        lay.symlink_to("nowhere")
    elif thing == "fifo":
        os.mkfifo(lay)
    elif thing in ("zero", "device"):
        lay.symlink_to("/dev/zero" if thing == "zero" else "/dev/full")
    elif thing == "socket":
        import socket

        here = os.getcwd()
        os.chdir(lay.parent)  # a socket's path may have 108 characters at most
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(lay.name)
        os.chdir(here)
    if place.startswith("card"):
        plan(bench)
    else:
        classify(bench, artifact="artifact")
        bench.hold("check", "artifact")


FLAGS = (
    *("--stride", "--overlap", "--batch", "--threads", "--scale", "--offset", "--bands", "--max-ram", "--image"),
    *("--check-every-s", "--deadline-s", "--vector", "--stack", "--progress"),
)


@fuzz(120)
@given(st.data())
def test_odd_flags(bench: Bench, scenes: dict[str, bytes], data: st.DataObject) -> None:
    (bench.fresh() / "scene.tif").write_bytes(scenes["strips"])
    odd = st.one_of(
        st.sampled_from([str(n) for n in (*ODD_NUMBERS, 10**30)]),
        st.sampled_from([t.replace("\x00", "") for t in ODD_TEXTS]),
        st.sampled_from(("1,2", "3,2,1", "0,0,0", "1,2,3,", "B04,B04,B04", "99,2,1", "-1,-2,-3", "1e3,2,1")),
    )
    chosen = data.draw(st.lists(st.sampled_from(FLAGS), min_size=1, max_size=3, unique=True))
    flags = [f"{flag}={data.draw(odd)}" for flag in chosen]
    bench.hold("classify", "scene.tif", "-o", "out", "--artifact", str(bench.artifact), *flags)


NOT_UTF8 = os.fsdecode(b"\xff\xfe")
NAMES = ("a b", "é", "x" * 250, "-o", "[red]", "a\nb", "\x1b[31m", "http:", "'\"", NOT_UTF8)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_odd_names(bench: Bench, scenes: dict[str, bytes], name: str) -> None:
    (bench.fresh() / f"{name}.tif").write_bytes(scenes["strips"])
    classify(bench, f"./{name}.tif")
    classify(bench, f"./{name}.tif/nothing")
    bench.hold("check", f"./{name}.tif")


@st.composite
def damaged_journal(draw: Any, whole: list[tuple[int, bytes]]) -> bytes:
    """Records with other kinds, numbers, lengths and payloads, whose sums are right."""
    records = [[kind, number, payload] for number, (kind, payload) in enumerate(whole)]
    texts = [payload for _, payload in whole if payload[:1] == b"{"]
    for _ in range(draw(st.integers(1, 3))):
        record = draw(st.sampled_from(records))
        change = draw(st.sampled_from(("kind", "number", "payload", "json", "twice", "gone", "swap")))
        if change == "kind":
            record[0] = draw(st.integers(0, 255))
        elif change == "number":
            record[1] = draw(st.sampled_from((0, 1, 2, 2**32 - 1)))
        elif change == "payload":
            record[2] = draw(damaged_bytes(record[2]))
        elif change == "json" and record[2] in texts:  # still whole
            record[2] = json.dumps(draw(damaged_data(json.loads(record[2])))).encode("utf-8", "surrogatepass")
        elif change == "twice":
            records.insert(draw(st.integers(0, len(records))), list(record))
        elif change == "gone" and len(records) > 1:
            records.remove(record)
        elif change == "swap":
            records.reverse()
    if draw(st.booleans()):  # numbered anew: only what the records say is wrong
        records = [[kind, number, payload] for number, (kind, _, payload) in enumerate(records)]
    return b"".join(framed(*record) for record in records)


def framed(kind: int, number: int, payload: bytes) -> bytes:
    total = zlib.crc32(payload, zlib.crc32(struct.pack("<BII", kind, number, len(payload))))
    return struct.pack("<4sB3xIII", b"esj1", kind, number, len(payload), total) + payload


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, artifact: Path) -> tuple[Path, list[tuple[int, bytes]]]:
    """A scene whose run was stopped half way, and the records of its journal."""
    folder = tmp_path_factory.mktemp("stopped")
    scene = make_scene(folder / "scene.tif", smooth(140, 37), tiled=True, blockxsize=16, blockysize=16)
    asked = iter(("", "", "stop", "stop", "stop", "stop", "stop", "stop", "stop"))
    options = ClassifyOptions(threads=1, scene=SceneOptions(accept_gsd=True))
    left = classify_scene(scene, artifact, folder / "out", options, stop=lambda: next(asked) or None)
    assert isinstance(left, Unfinished)
    records = [(int(record.kind), record.payload) for record in read_records(folder / "out" / "unfinished")]
    assert len(records) > 3
    return folder, records


@fuzz(120)
@given(st.data())
def test_damaged_journals(bench: Bench, stopped: tuple[Path, list[tuple[int, bytes]]], data: st.DataObject) -> None:
    folder = bench.fresh()
    shutil.copytree(stopped[0], folder, dirs_exist_ok=True)
    journal = folder / "out" / "unfinished" / JOURNAL_NAME
    whole = journal.read_bytes()
    journal.write_bytes(data.draw(st.one_of(damaged_bytes(whole), damaged_journal(stopped[1]))))
    classify(bench, flags=("--resume", "--threads", "1"))


def test_the_law_notices(bench: Bench) -> None:
    """Each clause of the law can fail."""
    empty = bench.fresh()
    good = Outcome(1, "", "error: x\n", "", 1.0)
    assert fault(good, empty, set()) is None
    for broken in (
        Outcome(None, "", "", "Traceback", 0),
        Outcome(130, "", "error: x\n", "", 0),
        Outcome(1, "", "", "", 0),
        Outcome(0, "", "error: x\n", "", 0),
        Outcome(1, "", "error: x\nerror: y\n", "", 0),
        Outcome(1, "", "ERROR 1: libtiff\nerror: x\n", "", 0),
        Outcome(1, "", "error: \x1b[31m\n", "", 0),
        Outcome(1, "", "error: " + "x" * 9999, "", 0),
        Outcome(1, "", "error: x\n", "", 1001.0),
    ):
        assert fault(broken, empty, set())
    (empty / "out").mkdir()
    (empty / "out" / "classes.tif").touch()
    assert fault(good, empty, set())
    assert fault(good, empty, {"out"}) is None


def test_a_process_that_is_killed_is_told(bench: Bench) -> None:
    copy_artifact(bench)
    outcome = bench.server.run(["check", "artifact"], bench.folder, 1e-6)
    assert outcome.code is None
    assert "hangs" in outcome.trace
    assert bench.server.run(["check", "artifact"], bench.folder, SECONDS).code == 0
