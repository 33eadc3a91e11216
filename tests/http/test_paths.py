"""Paths with characters that cannot be seen: refused, unless configuration takes them."""

import pytest

from tests.http.conftest import Door, open_agent

SEEN = ("/v1/kv/a%20b", "/v1/kv/%C3%BC")


@pytest.mark.parametrize("path", ["/v1/kv/%00a", "/v1/kv/a%7f", "/v1/kv/a%0D%0Ab", "/v1/catalog/service/%E2%80%8B"])
async def test_what_cannot_be_seen_is_refused(door: Door, path: str) -> None:
    for method in ("GET", "PUT", "DELETE") if "/kv/" in path else ("GET",):
        status, _, body = await door.call(method, path)
        assert (status, body) == (400, b""), method
    for seen in SEEN:
        assert (await door.put(seen, "v"))[0] == 200


async def test_configuration_can_take_it() -> None:
    async with open_agent("-hcl=disable_http_unprintable_char_filter = true") as door:
        assert (await door.put("/v1/kv/%01a", "v"))[0] == 200
        assert (await door.get("/v1/kv/%01a"))[0] == 200
