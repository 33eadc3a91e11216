"""Sorting by distance, and what the HTTP layer does for every endpoint."""

from __future__ import annotations

import contextlib
import socket

import pytest

from tests.contract.client import Api
from tests.contract.covers import covers
from tests.contract.servers import Server
from tests.patience import PATIENCE, eventually


def place(api: Api, node: str, service: str, seconds: float) -> None:
    """A node at a distance from the origin, with a service on it."""
    record = {"Node": node, "Address": "10.70.0.1", "Service": {"ID": service, "Service": service}}
    api.put(
        "/v1/catalog/register",
        {**record, "Check": {"CheckID": f"{node}-c", "Name": "c", "ServiceID": service, "Status": "warning"}},
    )
    vector = [seconds, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    coordinate = {"Vec": vector, "Error": 0.1, "Adjustment": 0.0, "Height": 0.00001}
    assert api.put("/v1/coordinate/update", {"Node": node, "Coord": coordinate}).status == 200
    eventually(lambda: api.get(f"/v1/coordinate/node/{node}").status == 200, f"the coordinate of {node} is stored")


@covers("GET /v1/catalog/service/:service", "near")
@covers("GET /v1/health/service/:service", "near")
@covers("GET /v1/catalog/nodes", "near")
@covers("GET /v1/health/checks/:service", "near")
@covers("GET /v1/health/state/:state", "near")
@covers("GET /v1/query/:query/execute", "near")
@covers("PUT /v1/coordinate/update")
def test_near_sorts_by_distance(api: Api, name: str) -> None:
    """The nearest comes first; a node without a coordinate comes last."""
    for letter, seconds in (("a", 0.001), ("b", 0.050), ("c", 0.010)):
        place(api, f"{name}-{letter}", name, seconds)
    api.put("/v1/catalog/register", {"Node": f"{name}-0", "Address": "10.70.0.2", "Service": {"Service": name}})
    query = api.post("/v1/query", {"Name": name, "Service": {"Service": name}}).json()["ID"]

    def order(path: str) -> list[str]:
        """Nodes of the case in the order of the answer."""
        rows = api.get(path).json()
        rows = rows["Nodes"] if isinstance(rows, dict) else rows
        nodes = [row["Node"]["Node"] if isinstance(row["Node"], dict) else row["Node"] for row in rows]
        return [node.removeprefix(f"{name}-") for node in nodes if node.startswith(name)]

    for near, expected in (("a", ["a", "c", "b"]), ("b", ["b", "c", "a"]), ("c", ["c", "a", "b"])):
        suffix = f"near={name}-{near}"
        assert order(f"/v1/catalog/service/{name}?{suffix}") == [*expected, "0"]
        assert order(f"/v1/health/service/{name}?{suffix}") == [*expected, "0"]
        assert order(f"/v1/catalog/nodes?{suffix}") == [*expected, "0"]
        assert order(f"/v1/query/{query}/execute?{suffix}") == [*expected, "0"]
        assert order(f"/v1/health/checks/{name}?{suffix}") == expected
        assert order(f"/v1/health/state/warning?{suffix}") == expected


@covers("GET /v1/coordinate/nodes")
def test_coordinates_of_all_nodes(api: Api, name: str) -> None:
    """Listed with their node and segment."""
    place(api, name, name, 0.001)
    found = [item for item in api.get("/v1/coordinate/nodes").json() if item["Node"] == name]
    assert found[0]["Segment"] == ""
    assert found[0]["Coord"]["Vec"][0] == 0.001


def test_too_many_connections_of_one_client_are_refused(own: Server) -> None:
    """`limits.http_max_conns_per_client` is 200; the others go on working, and closing makes room again."""
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection(("127.0.0.1", own.ports["http"]), PATIENCE))
            for _ in range(200)
        ]
        # Each is known to be accepted once it has answered.
        for connection in opened:
            connection.sendall(b"GET /v1/status/leader HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        with socket.create_connection(("127.0.0.1", own.ports["http"]), PATIENCE) as refused:
            with contextlib.suppress(ConnectionError):
                refused.sendall(b"GET /v1/status/leader HTTP/1.1\r\nHost: x\r\n\r\n")
            try:
                answer = refused.recv(65536)
            except ConnectionError:
                answer = b""
            assert answer == b"" or answer.startswith(b"HTTP/1.1 429")
        opened[0].sendall(b"GET /v1/status/leader HTTP/1.1\r\nHost: x\r\n\r\n")
        assert opened[0].recv(65536).startswith(b"HTTP/1.1 200")
    eventually(lambda: answers(own.api), "there is room again")


def answers(api: Api) -> bool:
    """Whether a new connection is served."""
    try:
        return api.get("/v1/status/leader").status == 200
    except OSError:
        return False


@pytest.mark.parametrize("request_line", ["GET /v1/kv/a HTTP/1.0", "GET /v1/kv/a HTTP/1.1"])
def test_old_and_new_http(server: Server, request_line: str) -> None:
    """HTTP/1.0 clients are answered and the connection is closed."""
    with socket.create_connection(("127.0.0.1", server.ports["http"]), PATIENCE) as tcp:
        tcp.sendall(f"{request_line}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while piece := tcp.recv(65536):
            data += piece
    assert data.split(b"\r\n", 1)[0].split(b" ")[1] == b"404"


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"HELLO WORLD\r\n\r\n", b"\x00" * 100]
)
def test_what_is_not_http_is_refused(server: Server, garbage: bytes) -> None:
    """The connection gets a 400 or is closed, and the server goes on."""
    with socket.create_connection(("127.0.0.1", server.ports["http"]), PATIENCE) as tcp:
        tcp.sendall(garbage)
        tcp.shutdown(socket.SHUT_WR)
        try:
            answer = tcp.recv(65536)
        except ConnectionError:
            answer = b""
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
    assert server.api.get("/v1/status/leader").status == 200
