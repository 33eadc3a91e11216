"""Both proxies, and each calling the other, while the servers are away: real processes, and meanwhile each agent is
killed with its proxies and has nothing but its disk to start from.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

AWAY = 5  # seconds, and what it takes to start each agent and its proxies again


def test_a_mesh_without_servers_goes_on_also_where_agents_and_proxies_are_started_again(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jepsen", "mesh", f"--away={AWAY}", "--restart", "--servers=3"]
    command.append(f"--keep={tmp_path}")
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout + ended.stderr
    assert ended.stdout.count("serve again") == 2
    assert ended.stdout.splitlines()[-1] == "nothing was noticed"
