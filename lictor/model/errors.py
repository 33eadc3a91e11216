"""Errors that a caller of Lictor meets, each with the status its door gives it.

They live on the lowest floor because every floor raises them and every door translates them: HTTP into `status` and the
message as text, DNS into an rcode, the CLI into one line and an exit code.
"""


class LictorError(Exception):
    """Something the caller asked for cannot be done; the message is what the caller reads."""

    status = 500


class InvalidRequest(LictorError):
    """The request itself is wrong: a missing field, a value that cannot be read."""

    status = 400


class Forbidden(LictorError):
    """The caller's token does not allow this."""

    status = 403


class NotFound(LictorError):
    """What the request names does not exist."""

    status = 404


class TooLarge(LictorError):
    """The body is over the limit that configuration sets."""

    status = 413


class RateExceeded(LictorError):
    """This agent made more calls to servers than `limits.rpc_rate` allows."""

    status = 429

    def __init__(self) -> None:
        super().__init__("RPC rate limit exceeded")


class Refused(LictorError):
    """The request was understood, and the state of the store does not allow it (status 500, as Consul gives it)."""


class NoPath(Refused):
    """No server of the datacenter that a request is for is known."""

    def __init__(self) -> None:
        super().__init__("No path to datacenter")


class NoLeader(LictorError):
    """There is no leader to take a write or confirm a read."""

    def __init__(self) -> None:
        super().__init__("No cluster leader")


class NotLeader(LictorError):
    """Only the leader can do this, and this server is not it."""

    def __init__(self, leader: str = "") -> None:
        super().__init__(f"node is not the leader: ask {leader}" if leader else "node is not the leader")


class Unsupported(LictorError):
    """A documented capability that this build does not carry; the message says which."""

    status = 501
