"""The golden files: Envoy's configuration for each of the snapshots, as Envoy's own JSON. To record them anew, and see
in the difference what a change does:

    python -m tests.connect_proxy.envoy.golden
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from lictor.connect_proxy.envoy import names
from lictor.connect_proxy.envoy.compiling import messages
from lictor.connect_proxy.envoy.snapshot import ProxySnapshot
from tests.connect_proxy.envoy.snapshots import SNAPSHOTS

FOLDER = Path(__file__).parent / "golden"


def configuration(snapshot: ProxySnapshot) -> dict[str, Any]:
    """Every resource by type, and what could not be used."""
    problems: list[str] = []
    made = messages(snapshot, problems)
    found: dict[str, Any] = {names.short(kind): [as_json(one) for one in made[kind]] for kind in names.ORDER}
    return found | ({"problems": problems} if problems else {})


def as_json(message: Any) -> Any:
    """A message as Envoy writes it."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def text(snapshot: ProxySnapshot) -> str:
    """A golden file."""
    return json.dumps(configuration(snapshot), indent=2, sort_keys=True) + "\n"


def record() -> None:
    """Write all of them, and remove those of snapshots that are no more."""
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.json"):
        if old.stem not in SNAPSHOTS:
            old.unlink()
    for name, snapshot in SNAPSHOTS.items():
        (FOLDER / f"{name}.json").write_text(text(snapshot))


if __name__ == "__main__":
    record()
