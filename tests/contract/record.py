"""Records scenarios anew from the reference: `python -m tests.contract.record [TITLE-PREFIX ...]`.

Only run it after changing a scenario, and read the difference: a recording is what the product promises.
"""

from __future__ import annotations

import sys

from tests.contract import player, servers
from tests.contract.scenario import Scenario, load_all, render


def main(prefixes: list[str]) -> int:
    """Rewrites the chosen scenario files in place; answers that change between two plays are named."""
    chosen = [item for item in load_all() if not prefixes or item.title.startswith(tuple(prefixes))]
    running: dict[str, servers.Server] = {}
    unstable = 0
    try:
        for scenario in chosen:
            unstable += _record(scenario, running)
    finally:
        for server in running.values():
            server.stop()
    print(f"{len(chosen)} scenarios, {sum(len(item.steps) for item in chosen)} requests, {unstable} unstable answers")
    return 1 if unstable else 0


def _record(scenario: Scenario, running: dict[str, servers.Server]) -> int:
    first = _play(scenario, running)
    second = _play(scenario, running)
    unstable = 0
    for step, one, other in zip(scenario.steps, first, second, strict=True):
        if one != other:
            unstable += 1
            print(f"{scenario.path}:{step.line}: {step.request}\n  once  {one}\n  again {other}")
    scenario.path.write_text(render(scenario, first))
    return unstable


def _play(scenario: Scenario, running: dict[str, servers.Server]) -> list[list[str]]:
    if scenario.fresh:
        own = servers.start("reference", scenario.profile)
        try:
            return player.play(scenario, own)
        finally:
            own.stop()
    if scenario.profile not in running:
        running[scenario.profile] = servers.start("reference", scenario.profile)
    return player.play(scenario, running[scenario.profile])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
