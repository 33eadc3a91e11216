"""Snapshots: what is saved comes back, and what is damaged changes nothing."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable

import pytest

from tests.contract.client import Api
from tests.contract.covers import covers
from tests.contract.servers import Server
from tests.patience import eventually


def fill(api: Api, name: str) -> None:
    """Something of every table."""
    api.put(f"/v1/kv/{name}?flags=9", "saved")
    session = api.put("/v1/session/create", {"Name": name, "LockDelay": "0s"}).json()["ID"]
    api.put(f"/v1/kv/{name}/lock?acquire={session}", "held")
    service = {"Service": name, "Port": 1, "Tags": ["t"], "Meta": {"m": "1"}}
    check = {"CheckID": name, "Name": "c", "Status": "warning", "ServiceID": name}
    api.put("/v1/catalog/register", {"Node": name, "Address": "10.40.0.1", "Service": service, "Check": check})
    api.post("/v1/query", {"Name": name, "Service": {"Service": name}})
    api.put("/v1/config", {"Kind": "service-defaults", "Name": name, "Protocol": "http"})


def state(api: Api, name: str) -> list[object]:
    """What `fill` made, with its indexes."""
    paths = (
        f"/v1/kv/{name}?recurse",
        "/v1/session/list",
        f"/v1/health/service/{name}",
        f"/v1/catalog/node/{name}",
        "/v1/query",
        "/v1/config/service-defaults",
    )
    return [api.get(path).json() for path in paths]


@covers("GET /v1/snapshot")
def test_an_archive_carries_its_own_checksums(api: Api, name: str) -> None:
    """A gzipped tar of meta.json, state.bin and SHA256SUMS."""
    fill(api, name)
    answer = api.get("/v1/snapshot")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/x-gzip"
    assert answer.index > 0
    assert answer.headers["x-consul-knownleader"] == "true"
    with tarfile.open(fileobj=io.BytesIO(answer.body), mode="r:gz") as archive:
        files = {member.name: opened.read() for member in archive if (opened := archive.extractfile(member))}
    assert set(files) == {"meta.json", "state.bin", "SHA256SUMS"}
    meta = json.loads(files["meta.json"])
    assert meta["Index"] > 0
    assert {"Version", "ID", "Index", "Term", "Configuration", "Size"} <= set(meta)
    assert meta["Size"] == len(files["state.bin"])
    lines = [line.split() for line in files["SHA256SUMS"].decode().splitlines()]
    listed = {file: digest for digest, file in lines}
    for file in ("meta.json", "state.bin"):
        assert listed[file] == hashlib.sha256(files[file]).hexdigest()


@covers("PUT /v1/snapshot")
def test_what_was_saved_comes_back(own: Server, name: str) -> None:
    """Everything, with its indexes, whatever happened since."""
    api = own.api
    fill(api, name)
    before = state(api, name)
    archive = api.get("/v1/snapshot").body
    api.delete(f"/v1/kv/{name}?recurse")
    api.put(f"/v1/kv/{name}-new", "made after the snapshot")
    api.put("/v1/catalog/deregister", {"Node": name})
    for query in api.get("/v1/query").json():
        api.delete(f"/v1/query/{query['ID']}")
    api.delete(f"/v1/config/service-defaults/{name}")
    answer = api.put("/v1/snapshot", archive)
    assert answer.status == 200, answer.text
    assert answer.body == b""
    eventually(lambda: state(api, name) == before, "the state is that of the snapshot")
    assert api.get(f"/v1/kv/{name}-new").status == 404
    # And the server goes on working, with indexes that still grow.
    assert api.put(f"/v1/kv/{name}-after", "v").json() is True
    assert api.get(f"/v1/kv/{name}-after").json()[0]["ModifyIndex"] > before[0][0]["ModifyIndex"]  # type: ignore[index]


def truncated(archive: bytes) -> bytes:
    """The first half."""
    return archive[: len(archive) // 2]


def flipped(archive: bytes) -> bytes:
    """A bit changed in the state, and packed again: only the checksum can tell."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as old:
        files = [(member, opened.read()) for member in old if (opened := old.extractfile(member))]
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as new:
        for member, content in files:
            changed = bytes([content[0] ^ 1]) + content[1:] if member.name == "state.bin" else content
            new.addfile(member, io.BytesIO(changed))
    return output.getvalue()


def without_sums(archive: bytes) -> bytes:
    """The list of checksums left out."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as old:
        files = [(member, opened.read()) for member in old if (opened := old.extractfile(member))]
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as new:
        for member, content in files:
            if member.name != "SHA256SUMS":
                new.addfile(member, io.BytesIO(content))
    return output.getvalue()


DAMAGES: tuple[Callable[[bytes], bytes], ...] = (
    truncated,
    flipped,
    without_sums,
    lambda archive: b"",
    lambda archive: b"not an archive",
    lambda archive: gzip.compress(b"not a tar"),
)


@covers("PUT /v1/snapshot")
@pytest.mark.parametrize("damage", DAMAGES, ids=["truncated", "flipped", "no sums", "empty", "text", "gzip of text"])
def test_a_damaged_archive_changes_nothing(api: Api, name: str, damage: Callable[[bytes], bytes]) -> None:
    """It is refused with a reason, and everything is as it was."""
    fill(api, name)
    archive = api.get("/v1/snapshot").body
    api.put(f"/v1/kv/{name}", "newer than the snapshot")
    before = state(api, name)
    answer = api.put("/v1/snapshot", damage(archive))
    assert answer.status == 500
    assert answer.text
    assert state(api, name) == before
    assert api.put(f"/v1/kv/{name}", "goes on").json() is True


@covers("GET /v1/snapshot", "stale")
@covers("PUT /v1/snapshot")
def test_methods_and_parameters(api: Api) -> None:
    """Stale snapshots are served; other methods are not."""
    assert api.get("/v1/snapshot?stale").status == 200
    assert api.get("/v1/snapshot?dc=nowhere").status == 500
    for method in ("POST", "DELETE"):
        answer = api.request(method, "/v1/snapshot")
        assert answer.status == 405
        assert answer.headers["allow"] == "OPTIONS,GET,PUT"
