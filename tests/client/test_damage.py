"""Files that are no lookup maps, or damaged ones: a clear error or the truth, never anything else."""

import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lictor.agent.lookup_file import older_names, open_older
from lictor.client.errors import ClientError, DamagedMap, NoMap
from lictor.model import lookup_layout as layout
from tests.client.maps import instance, lookups, new_map, put

NAMES = ("web", "db", "cache")


class Whole(NamedTuple):
    """A file's bytes, of which a failed test need not show all."""

    content: bytes

    def __repr__(self) -> str:
        return f"{len(self.content)} bytes"


@pytest.fixture(scope="module")
def whole() -> Whole:
    """The bytes of a map with three services."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map"
        file = new_map(path)
        for number, name in enumerate(NAMES):
            put(file, name, instance(number), instance(number + 10))
        file.remove("cache")
        put(file, "cache", instance(2))
        return Whole(path.read_bytes())


def read_all(content: bytes) -> None:
    """Read every service from a file with this content: what is found is what was put."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map"
        path.write_bytes(content)
        reader = lookups(path)
        for number, name in enumerate(NAMES):
            try:
                found = reader.service(name)
            except ClientError as error:
                assert str(path) in str(error)
            else:
                assert {e.port for e in found.endpoints} <= {8000 + number, 8010 + number}
                assert found.endpoints[0].age >= 0
        assert set(older_names(path)) <= set(NAMES)
        reader.close()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "0 bytes are too few"),
        (b"x" * 4095, "4095 bytes are too few"),
        (b"x" * 8192, "it is no lookup map"),
        (bytes(1 << 20), "it is no lookup map"),
    ],
)
def test_what_is_no_map_says_so(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "map"
    path.write_bytes(content)
    with pytest.raises(DamagedMap, match=told) as caught:
        lookups(path).lookup("web")
    assert str(path) in str(caught.value)
    assert open_older(path) is None


def test_a_folder_and_a_pipe_are_no_maps(tmp_path: Path) -> None:
    import os

    with pytest.raises(NoMap):
        lookups(tmp_path).lookup("web")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NoMap):
        lookups(tmp_path / "pipe").lookup("web")


@settings(deadline=None)
@given(length=st.integers(0, 80_000))
def test_a_map_that_was_cut_off(whole: Whole, length: int) -> None:
    read_all(whole.content[:length])


INTERESTING = st.sampled_from([0, 1, 2, 7, 63, 64, 4096, 4097, 65535, 1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1])


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2**20), st.one_of(INTERESTING, st.integers(0, 2**64 - 1))), min_size=1, max_size=4
    )
)
def test_a_map_with_words_of_it_changed(whole: Whole, changes: list[tuple[int, int]]) -> None:
    """Most changes go to words that are not zero: those of the header, of the table and of the blocks."""
    content = bytearray(whole.content)
    used = [at for at in range(0, len(whole.content), 8) if any(whole.content[at : at + 8])]
    for place, value in changes:
        at = used[place % len(used)]
        content[at : at + 8] = value.to_bytes(8, "little")
    read_all(bytes(content))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**20), st.integers(1, 255)), min_size=1, max_size=8))
def test_a_map_with_bits_of_it_flipped(whole: Whole, changes: list[tuple[int, int]]) -> None:
    content = bytearray(whole.content)
    used = [at for at in range(len(whole.content)) if whole.content[at]]
    for place, bits in changes:
        content[used[place % len(used)]] ^= bits
    read_all(bytes(content))


def test_a_table_without_an_end_is_searched_once(whole: Whole, tmp_path: Path) -> None:
    content = bytearray(whole.content)
    table = int.from_bytes(content[layout.H_TABLE * 8 : layout.H_TABLE * 8 + 8], "little")
    slots = int.from_bytes(content[table : table + 8], "little")
    for slot in range(slots):
        at = table + layout.TABLE_HEAD + slot * layout.SLOT
        content[at : at + layout.SLOT] = b"\xff" * layout.SLOT
    path = tmp_path / "map"
    path.write_bytes(bytes(content))
    with pytest.raises(ClientError, match="does not hold web"):
        lookups(path).lookup("web")
