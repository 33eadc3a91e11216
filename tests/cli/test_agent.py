"""What `lictor agent` refuses to start as, before anything is opened or written."""

from pathlib import Path

import pytest

from tests.cli.command_line import here


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((), "data_dir cannot be empty"),
        (("-data-dir=%s", "-hcl=acl { enabled = true }"), "acl.enabled = true: tokens are not checked yet"),
        (("-dev", "-hcl=acl { enabled = true }"), "acl.enabled = true: tokens are not checked yet"),
    ],
)
def test_what_needs_parts_that_are_not_there_yet_is_refused(flags: tuple[str, ...], told: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    done = here("agent", "-bind=127.0.0.1", *(flag % folder if "%s" in flag else flag for flag in flags))
    assert done.code == 1
    assert done.err.startswith(told)
    assert not folder.exists()
