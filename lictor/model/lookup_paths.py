"""Where the lookup map is, so that an agent and the programs of its machine find the same place without asking.

An agent writes into the first folder of `folders` that it may write to; a program looks in all of them, in this order.
The file's name says which agent's it is: several may run on one machine.
"""

import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lictor.model.host_port import join_host_port

SYSTEM = Path("/run/lictor")
DEFAULT_PORT = 8500
_HERE = ("", "0.0.0.0", "::", "::1", "localhost")


def file_name(address: str) -> str:
    """The file's name for an HTTP address, host:port or unix:///path, with or without a scheme."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        scheme, rest = "http", address
    if scheme == "unix":
        return f"lookup-{rest.strip('/').replace('/', '-')}.map"
    host, colon, port = rest.partition("/")[0].rpartition(":")
    if not colon or port.endswith("]"):
        host, port = rest.partition("/")[0], str(443 if scheme == "https" else DEFAULT_PORT)
    host = host.strip("[]")
    text = join_host_port("127.0.0.1" if host in _HERE else host, int(port) if port.isdigit() else 0)
    return f"lookup-{text.replace(':', '-').replace('[', '').replace(']', '')}.map"


def folders(environment: Mapping[str, str] | None = None) -> list[Path]:
    """The folders in which maps are, best first: the user's session's where there is one, as there is none for
    services; the system's; the user's own temporary one.
    """
    variables = os.environ if environment is None else environment
    session = variables.get("XDG_RUNTIME_DIR")
    found = [Path(session) / "lictor"] if session else []
    return [*found, SYSTEM, Path(tempfile.gettempdir()) / f"lictor-{os.getuid()}"]


def trusted(folder: Path) -> bool:
    """Whether what is in a folder was put there by this user or by the system: anybody may make folders among the
    temporary files, and could lead programs astray with a map in one.
    """
    try:
        found = folder.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        return False
    if folder == SYSTEM:
        return True  # only root makes folders in /run, for whoever it runs the agent as
    return found.st_uid in (0, os.getuid()) and not found.st_mode & 0o022


def ready_folder(environment: Mapping[str, str] | None = None) -> Path:
    """The folder to write a map into; made where it is missing. Raises `OSError` where there is none."""
    last: OSError | None = None
    for folder in folders(environment):
        try:
            folder.mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            last = error
            continue
        if trusted(folder) and os.access(folder, os.W_OK | os.X_OK):
            return folder
        last = PermissionError(13, "the folder is not this user's, or others may write to it", str(folder))
    raise last or OSError("no folder for the lookup map")
