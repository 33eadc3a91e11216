"""What whoever writes a config entry is told of it."""

from __future__ import annotations

from typing import Any

import pytest

from lictor.cli.command import CommandError
from lictor.cli.config.document import with_canonical_names
from lictor.cli.config.write import caution_of


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"Kind": "service-defaults", "Name": "web", "mutual_tls_mode": "permissive"}, "no intention is asked"),
        ({"Kind": "proxy-defaults", "Name": "global", "MutualTLSMode": "permissive"}, "no intention is asked"),
        ({"Kind": "mesh", "Name": "", "AllowEnablingPermissiveMutualTLS": True}, "may set MutualTLSMode=permissive"),
    ],
)
def test_what_opens_the_mesh_is_told(entry: dict[str, Any], words: str) -> None:
    assert words in caution_of(entry)


@pytest.mark.parametrize(
    "entry",
    [
        {"Kind": "service-defaults", "Name": "web", "MutualTLSMode": "strict"},
        {"Kind": "service-resolver", "Name": "web"},
        {"Kind": "mesh", "Name": ""},
    ],
)
def test_of_most_entries_there_is_nothing_to_tell(entry: dict[str, Any]) -> None:
    assert caution_of(entry) == ""


def test_the_only_entry_about_the_mesh_need_not_be_named() -> None:
    assert with_canonical_names({"kind": "mesh"}) == {"Kind": "mesh", "Name": "mesh"}
    assert with_canonical_names({"kind": "service-defaults"})["Name"] == ""


def test_a_key_that_there_is_not_is_told_before_anything_is_sent() -> None:
    with pytest.raises(CommandError, match="Failed to decode config entry input"):
        caution_of({"Kind": "service-defaults", "Name": "web", "Mutual": "permissive"})
