"""The `lictor` command with the fewest rights that a proxy needs, for the proxies that an agent starts.

Nothing that this process does or becomes gains a right, and of root's it keeps one, to listen on ports below 1024.
Linux; elsewhere it is the ordinary command.
"""

import ctypes
import os
import struct
import sys

_NO_NEW_PRIVILEGES, _DROP_BOUNDING, _DROP_AMBIENT, _CLEAR_ALL = 38, 24, 47, 4  # prctl(2)
_NET_BIND_SERVICE = 10  # capabilities(7)
_CAPABILITIES_VERSION_3 = 0x20080522
_CAPSET = {"x86_64": 126, "aarch64": 91}


def confine() -> None:
    """Give up every right but the one above, for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    number = 0
    while libc.prctl(_DROP_BOUNDING, number, 0, 0, 0) == 0 or number <= _NET_BIND_SERVICE:
        number += 1
        if number == _NET_BIND_SERVICE:
            number += 1
    libc.prctl(_DROP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    call = _CAPSET.get(os.uname().machine)
    if call is not None:
        kept = 1 << _NET_BIND_SERVICE if os.geteuid() == 0 else 0
        header = struct.pack("=Ii", _CAPABILITIES_VERSION_3, 0)
        libc.syscall(call, header, struct.pack("=6I", kept, kept, 0, 0, 0, 0))


if __name__ == "__main__":
    if sys.platform == "linux":
        confine()
    from lictor.cli.main import main

    sys.exit(main())
