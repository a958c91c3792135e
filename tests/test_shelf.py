from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeslim.errors import InputError, UnknownName
from edgeslim.shelf import card_paths, read_record, read_toml, shelf_folder, take


@dataclass(frozen=True)
class Leaf:
    size: float

    def __post_init__(self) -> None:
        if self.size < 0:
            raise InputError(f"size: found {self.size:g}, expected at least 0")


@dataclass(frozen=True)
class Card:
    id: str
    count: int
    aliases: tuple[str, ...] = ()
    leaves: tuple[Leaf, ...] = ()
    by_name: dict[str, Leaf] | None = None
    flag: bool = False


def load(path: Path) -> Card:
    return read_record(Card, read_toml(path), str(path))


def test_records_are_read_with_nested_tables() -> None:
    data = {"id": "a", "count": 2, "leaves": [{"size": 1}], "by_name": {"x": {"size": 0.5}}, "flag": True}
    assert read_record(Card, data, "a.toml") == Card("a", 2, (), (Leaf(1.0),), {"x": Leaf(0.5)}, True)
    assert read_record(Card, {"id": "a", "count": 1, "by_name": None}, "a.toml").by_name is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"id": "a"}, "a.toml: missing key 'count'"),
        ({"id": "a", "count": 1, "colour": 1}, "a.toml: unknown key 'colour', expected some of id, count"),
        ({"id": "a", "count": "1"}, "a.toml: count: found '1', expected a whole number"),
        ({"id": "a", "count": True}, "a.toml: count: found True, expected a whole number"),
        ({"id": 3, "count": 1}, "a.toml: id: found 3, expected a text"),
        ({"id": "a", "count": 1, "aliases": "b"}, "a.toml: aliases: found 'b', expected an array"),
        ({"id": "a", "count": 1, "flag": 1}, "a.toml: flag: found 1, expected true or false"),
        ({"id": "a", "count": 1, "leaves": [5]}, "a.toml: leaves 1: found 5, expected a table { size = ... }"),
        ({"id": "a", "count": 1, "leaves": [{"size": -1}]}, "a.toml: leaves 1: size: found -1, expected at least 0"),
        ({"id": "a", "count": 1, "by_name": 3}, "a.toml: by_name: found 3, expected a table"),
    ],
)
def test_wrong_records_name_file_key_found_and_expected(data: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        read_record(Card, data, "a.toml")
    assert message in str(error.value)


def test_invalid_toml_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("id = \n")
    with pytest.raises(InputError, match=r"a.toml: not valid TOML .*line 1"):
        read_toml(tmp_path / "a.toml")
    with pytest.raises(InputError, match="cannot be read"):
        read_toml(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "text", ['id = "a"\nid = "b"\n', "[a]\nx = 1\n[a]\ny = 1\n", "a.x = 1\n[a]\nx = 2\n", "a = {x = 1, x = 2}\n"]
)
def test_a_key_that_is_there_twice_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(InputError, match=r"^.*a.toml: not valid TOML .*line \d.*; mend that line$"):
        read_toml(tmp_path / "a.toml")


def test_what_an_editor_puts_around_a_text_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1\r\nb = 2\r\n")
    assert read_toml(path) == {"a": 1, "b": 2}


@pytest.mark.parametrize(("data", "byte"), [("a = 1".encode("utf-16"), "ff"), ("a = 'é'".encode("latin-1"), "e9")])
def test_another_encoding_is_told(tmp_path: Path, data: bytes, byte: str) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(data)
    message = f"a.toml: found byte 0x{byte}, which is no UTF-8, expected TOML in UTF-8; save it so$"
    with pytest.raises(InputError, match=message):
        read_toml(path)


def test_own_cards_come_first_and_aliases_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "devices"
    folder.mkdir()
    (folder / "mine.toml").write_text('id = "mine"\ncount = 1\naliases = ["my"]\n')
    assert card_paths("devices", tmp_path)[0] == folder / "mine.toml"
    assert take("devices", "device", "my", load_first(folder), tmp_path).id == "mine"


def test_an_alias_of_two_cards_of_ones_own_names_neither(tmp_path: Path) -> None:
    folder = tmp_path / "devices"
    folder.mkdir()
    for name in ("mine", "other"):
        (folder / f"{name}.toml").write_text(f'id = "{name}"\ncount = 1\naliases = ["my"]\n')
    with pytest.raises(InputError, match=r"mine\.toml: aliases: found 'my', as in .*other\.toml, expected it in one"):
        take("devices", "device", "my", load_first(folder), tmp_path)


def load_first(folder: Path):  # type: ignore[no-untyped-def]
    return lambda path: load(path) if path.parent == folder else Card(path.stem, 0)


def test_an_unknown_name_lists_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "devices").mkdir()
    with pytest.raises(UnknownName, match="raspberry-pi-5-8gb"):
        take("devices", "device", "raspbery-pi-5", lambda path: Card(path.stem, 0), tmp_path)


def test_a_missing_cards_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no such folder"):
        card_paths("devices", tmp_path / "none")


def test_shelves_are_found_beside_the_package() -> None:
    for shelf in ("devices", "profiles", "export"):
        assert list(shelf_folder(shelf).glob("*.toml"))
