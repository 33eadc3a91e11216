"""host:port as text; an IPv6 address with a port stands in brackets."""


def join_host_port(host: str, port: int) -> str:
    """`10.0.0.1:8300`, `[::1]:8300`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_host_port(text: str, default: int) -> tuple[str, int]:
    """Host and port of `host`, `host:port`, `[v6]:port`, `[v6]` or a bare IPv6 address. Raises `ValueError`."""
    text = text.strip()
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is no address: the bracket is not closed, or not followed by :port")
        port = rest[1:] if rest else ""
        given = bool(rest)
    elif text.count(":") > 1:
        host, port, given = text, "", False
    else:
        host, colon, port = text.partition(":")
        given = bool(colon)
    if not host or any(character.isspace() or character in "=/," for character in host):
        raise ValueError(f"{text!r} is no address: give a host, host:port or [IPv6 address]:port")
    if not given:
        return host, default
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise ValueError(f"{text!r} is no address: its port must be a number from 1 to 65535")
    return host, int(port)
