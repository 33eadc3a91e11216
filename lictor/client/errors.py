"""What goes wrong for a program that uses `lictor.client`: every error is a `ClientError`, and says what to do."""


class ClientError(Exception):
    """Something that was asked for could not be had."""


# -- answers of the API ------------------------------------------------------------------------------------------------


class ApiError(ClientError):
    """The agent answered, and not with what was asked for. `status` is the HTTP status, `text` the answer's text."""

    def __init__(self, status: int, text: str, what: str = "") -> None:
        super().__init__(f"{what}: {status} ({text})" if what else f"{status} ({text})")
        self.status = status
        self.text = text


class InvalidRequest(ApiError):
    """Status 400: the request itself is wrong."""


class Forbidden(ApiError):
    """Status 401 or 403: the token does not allow it."""


class NotFound(ApiError):
    """Status 404: what the request names does not exist, or the agent has no such endpoint."""


class Conflict(ApiError):
    """Status 409: what was to hold for the request did not; a transaction was rolled back."""


class TooLarge(ApiError):
    """Status 413: the body is over the agent's limit."""


class TooMany(ApiError):
    """Status 429: too many requests."""


class NoLeader(ApiError):
    """No server leads at the moment. A read may be tried with `consistency="stale"`."""


class ServerError(ApiError):
    """Any other status from 500 on."""


class BadAnswer(ClientError):
    """What answered is no agent, or not one that this library understands."""


def api_error(status: int, text: str, what: str) -> ApiError:
    """The error for a status that was not asked for."""
    kind = _KINDS.get(status)
    if kind is None:
        kind = ServerError if status >= 500 else ApiError
        if status == 500 and "No cluster leader" in text:
            kind = NoLeader
    return kind(status, text, what)


_KINDS: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    429: TooMany,
}


# -- no answer ---------------------------------------------------------------------------------------------------------


class NoAgent(ClientError):
    """No agent answers. `begun` is whether the request was sent, so that it may have been carried out."""

    def __init__(self, text: str, *, begun: bool = False) -> None:
        super().__init__(text)
        self.begun = begun


# -- lookups -----------------------------------------------------------------------------------------------------------


class NoInstance(ClientError):
    """The service has no instance that may be used now."""


class Stale(ClientError):
    """The lookup map is older than the caller allows. `age` is in seconds, infinite for not known."""

    def __init__(self, text: str, age: float) -> None:
        super().__init__(text)
        self.age = age


class NoMap(ClientError):
    """There is no lookup map at that place."""


class DamagedMap(NoMap):
    """The file is no lookup map, one of another layout, or damaged."""


class NotPublished(ClientError):
    """The lookup map does not hold the service (yet)."""


# -- locks -------------------------------------------------------------------------------------------------------------


class LockError(ClientError):
    """A lock cannot be had or kept."""


# -- the mesh ----------------------------------------------------------------------------------------------------------


class PeerRefused(ClientError, ConnectionAbortedError):
    """The other end of a connection is not whom it must be, or may not connect. No byte of it was passed on."""


class NotReady(ClientError):
    """The agent has not given what a connection of the mesh needs: the roots, a certificate, the intentions."""
