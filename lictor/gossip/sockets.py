"""A pool's sockets: one for datagrams and one for streams, on one port. They may be open before the rest is loaded."""

from __future__ import annotations

import socket

from lictor.model.host_port import join_host_port

BACKLOG = 128
_RECEIVE_BUFFER = 2 * 1024 * 1024
_BIND_TRIES = 20

Sockets = tuple[socket.socket, socket.socket]
"""For datagrams, for streams."""


def bind(host: str, port: int) -> Sockets:
    """The sockets at an IP address; port 0 takes one that is free for both. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for left in reversed(range(_BIND_TRIES)):
        tcp = socket.socket(family, socket.SOCK_STREAM)
        udp = socket.socket(family, socket.SOCK_DGRAM)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((host, port))
            udp.bind((host, tcp.getsockname()[1]))
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            tcp.listen(BACKLOG)
            tcp.setblocking(False)
            udp.setblocking(False)
            return udp, tcp
        except OSError as error:
            tcp.close()
            udp.close()
            # A free port for streams may be taken for datagrams; another one may not.
            if port != 0 or left == 0:
                raise OSError(error.errno, f"cannot bind {join_host_port(host, port)}: {error.strerror}") from None
    raise AssertionError("unreachable")
