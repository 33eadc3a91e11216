"""`/v1/internal/ui/metrics-proxy`: the web page's way to the one metrics back end that configuration names.

Strict: only GET, only under the configured URL, only the configured paths, no redirects followed, no token passed on,
and no more than `MAX_ANSWER` bytes back.
"""

import posixpath
from typing import Any
from urllib.parse import quote, urlsplit

from lictor.agent.config.sections import UiConfig
from lictor.http.api import Api
from lictor.http.reply import Reply
from lictor.http.request import Request
from lictor.http.routes import Family
from lictor.model.authorizer import READ
from lictor.model.errors import InvalidRequest, LictorError, NotFound

family = Family()

MAX_ANSWER = 16 * 1024 * 1024  # bytes
PATIENCE = (30.0, 5.0)  # seconds in all, and to connect
PROMETHEUS_PATHS = ("/api/v1/query", "/api/v1/query_range")
# Of the caller's headers, those that say what answer it can read; none that say who it is.
_PASSED = ("accept", "accept-language", "user-agent")


class BadGateway(LictorError):
    """The metrics back end cannot be reached, or answers what cannot be passed on."""

    status = 502


class NotAllowed(LictorError):
    """The path is not among those that may be asked."""

    status = 403


def target(ui: UiConfig, path: str, query: str) -> str:
    """The address that a path means. Raises `NotFound`, `NotAllowed` or `InvalidRequest`."""
    proxy = ui.metrics_proxy
    if not ui.enabled:
        raise NotFound("UI is not enabled")
    if not proxy.base_url:
        raise NotFound("Metrics proxy is not enabled")
    base = urlsplit(proxy.base_url)
    if any(ord(char) < 0x20 or char == "\\" for char in path):
        raise InvalidRequest("Invalid path.")
    root = posixpath.normpath("/" + base.path.strip("/"))
    whole = posixpath.normpath(f"{root}/{path.lstrip('/')}")
    if whole.startswith("//"):
        whole = whole[1:]
    if root != "/" and whole != root and not whole.startswith(root + "/"):
        raise InvalidRequest("Invalid path.")
    allowed = proxy.path_allowlist or (PROMETHEUS_PATHS if ui.metrics_provider == "prometheus" else ())
    if allowed and whole not in allowed:
        raise NotAllowed("")
    return f"{base.scheme}://{base.netloc}{quote(whole)}{'?' + query if query else ''}"


@family.action("GET", "/v1/internal/ui/metrics-proxy/*path")
async def forward(api: Api, request: Request) -> Any:
    """Ask the metrics back end."""
    # Imported with the first call: most agents have no back end to ask.
    import aiohttp
    from yarl import URL

    ui = api.agent.config.ui_config
    url = target(ui, request.vars["path"], request.raw_query)
    request.require("node", "", READ)
    request.require("service", "", READ)
    headers = {name: request.headers[name] for name in _PASSED if name in request.headers}
    for header in ui.metrics_proxy.add_headers:
        headers[str(header.get("name", ""))] = str(header.get("value", ""))
    headers.pop("", None)
    patience = aiohttp.ClientTimeout(total=PATIENCE[0], connect=PATIENCE[1])
    try:
        async with (
            aiohttp.ClientSession(timeout=patience, cookie_jar=aiohttp.DummyCookieJar()) as client,
            client.get(URL(url, encoded=True), headers=headers, allow_redirects=False) as answer,
        ):
            body = await answer.content.read(MAX_ANSWER + 1)
            while len(body) <= MAX_ANSWER and (more := await answer.content.read(MAX_ANSWER + 1 - len(body))):
                body += more
            if len(body) > MAX_ANSWER:
                raise BadGateway(f"the metrics back end answers with more than {MAX_ANSWER} bytes")
            content_type = answer.headers.get("Content-Type", "application/octet-stream")
            return Reply(answer.status, body, content_type)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise BadGateway(f"the metrics back end cannot be asked: {error or type(error).__name__}") from None
