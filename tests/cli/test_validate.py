"""`lictor validate`: what it says of good files and bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command_line import here

GOOD = 'datacenter = "dc1"\ndata_dir = "{folder}/data"\nbind_addr = "127.0.0.1"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = tmp_path / "config"
    config.mkdir()
    (config / "a.hcl").write_text(GOOD.format(folder=tmp_path))
    return config


def test_a_valid_configuration(folder: Path) -> None:
    (folder / "b.hcl").write_text("server = true\nbootstrap = true\n")
    warned = "WARNING: bootstrap = true: do not enable unless necessary\n"
    assert here("validate", str(folder)) == (0, "Configuration is valid!\n", warned)
    assert here("validate", "-quiet", str(folder)) == (0, "", warned)


def test_what_this_version_does_not_start_or_obey_is_told(folder: Path) -> None:
    (folder / "b.hcl").write_text('server_name = "x"\n')
    done = here("validate", str(folder))
    assert (done.code, done.out) == (0, "Configuration is valid!\n")
    assert done.err == "WARNING: Without effect in this version: server_name\n"


def test_files_are_judged_together(folder: Path) -> None:
    (folder / "b.hcl").write_text("server = true\nbootstrap_expect = 3\nbootstrap = true\n")
    done = here("validate", str(folder))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("Config validation failed: ")


def test_an_unknown_key_is_told_with_its_place_and_its_neighbour(folder: Path) -> None:
    (folder / "b.hcl").write_text('\n\ndatacentre = "x"\n')
    done = here("validate", str(folder))
    assert (done.code, done.out) == (1, "")
    assert "b.hcl:3" in done.err
    assert '"datacentre"' in done.err
    assert '"datacenter"' in done.err


def test_every_file_that_cannot_be_read_is_told(folder: Path) -> None:
    (folder / "b.hcl").write_bytes(b"\xff")
    (folder / "c.json").write_text("{")
    done = here("validate", str(folder), str(folder / "nope"))
    assert done.code == 1
    for told in ("b.hcl:1: is not UTF-8 text", "c.json:1: ", "nope: cannot be read: No such file or directory"):
        assert told in done.err


def test_the_format_can_be_forced(folder: Path) -> None:
    (folder / "a.hcl").rename(folder / "a.conf")
    assert here("validate", "-config-format=hcl", str(folder / "a.conf")).code == 0
    done = here("validate", "-config-format=json", str(folder / "a.conf"))
    assert done.code == 1
    assert "a.conf" in done.err
    assert here("validate", "-config-format=ini", str(folder)).err.startswith("-config-format must be either")


def test_files_that_are_not_there(folder: Path) -> None:
    assert here("validate").err == "Must specify at least one config file or directory\n"
    done = here("validate", str(folder / "nope.hcl"))
    assert done.code == 1
    assert "nope" in done.err
    assert "no such file or directory" in done.err.lower()


def test_a_watch_without_a_handler_is_found(folder: Path) -> None:
    (folder / "b.json").write_text('{"watches": [{"type": "key", "key": "a"}]}')
    done = here("validate", str(folder))
    assert done.code == 1
    assert "Must define a watch handler" in done.err
