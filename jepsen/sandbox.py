"""Private namespaces for a run: its own network, mounts and processes, which end with it, however it ends.

The harness starts itself anew under `unshare`: as the first process of a process namespace, in a network that holds
nothing yet. When it ends, or is killed, the kernel ends every server, and removes every interface, packet rule and
mount that was made inside. Nothing of it is ever visible outside, so nothing outside can be damaged. Root is not
needed where the kernel gives namespaces to users.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

MARK: Final = "JEPSEN_SANDBOX"  # set in the environment of a harness that is inside
_PROGRAMS: Final = ("unshare", "ip", "nft", "mount")


def inside() -> bool:
    """Whether this process is in namespaces of its own."""
    return os.environ.get(MARK) == "1"


def obstacle() -> str:
    """Why there can be no sandbox here; empty if there can."""
    if sys.platform != "linux":
        return "namespaces need Linux"
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    trial = ["ip link add trial1 type veth peer name trial2", "nft add table inet trial", "mount -t tmpfs none /run"]
    tried = subprocess.run([*_unshare(), "sh", "-ec", "; ".join(trial)], capture_output=True, text=True, timeout=60)
    if tried.returncode != 0:
        said = (tried.stderr.strip() or f"exit code {tried.returncode}").splitlines()[-1]
        return f"namespaces are not to be had here: {said}"
    return ""


def enter(arguments: Sequence[str]) -> None:
    """Become `python -m jepsen ARGUMENTS` inside. Does not return; raises `OSError` where that cannot be started."""
    command = [*_unshare(), sys.executable, "-m", "jepsen", *arguments]
    os.execvpe(command[0], command, {**os.environ, MARK: "1"})


def _unshare() -> list[str]:
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *user, "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
