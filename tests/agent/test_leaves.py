"""Identities are made, signed, kept and handed out."""

import asyncio
import stat
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from lictor.agent import leaves as leaves_module
from lictor.agent.leaves import Leaves
from lictor.agent.leaves_book import Leaf
from lictor.agent.leaves_files import LeafFiles
from lictor.ca import certificates
from lictor.ca.provider import Authority as ProviderAuthority
from lictor.model.connect_ca import CARoot
from lictor.model.errors import InvalidRequest, LictorError, NoLeader, Refused
from lictor.model.spiffe import ServiceId, SigningId, trust_domain
from lictor.server.connect_ca_requests import SignedLeaf, SigningLimited
from lictor.server.connect_ca_roots import as_root
from lictor.store.reads.connect_ca import Trusted
from lictor.store.store import Answer
from tests.patience import PATIENCE, soon

CLUSTER = "11111111-2222-3333-4444-555555555555"
DOMAIN = trust_domain(CLUSTER)
TTL = 3600.0


class Authority:
    """The servers' side: roots, and signing with the real thing. `refusal` is raised instead where it is set."""

    def __init__(self) -> None:
        self.refusal: LictorError | None = None
        self.asked: list[str] = []
        self.tokens: list[str] = []
        self.at_once = 0
        self.most_at_once = 0
        self.index = 10
        self.life = TTL
        self._told: list[asyncio.Queue[list[CARoot]]] = []
        self.rotate()

    def rotate(self) -> None:
        """Another root takes the place of the present one."""
        self.key = certificates.make_key()
        now = time.time()
        pem = certificates.make_root(self.key, SigningId(DOMAIN), "root", 10 * TTL, now, len(self._told) + 1)
        self.root: CARoot = as_root(ProviderAuthority(pem), CLUSTER, TTL)
        for queue in self._told:
            queue.put_nowait([self.root])

    async def roots(self) -> AsyncGenerator[Answer[Trusted], None]:
        queue: asyncio.Queue[list[CARoot]] = asyncio.Queue()
        self._told.append(queue)
        queue.put_nowait([self.root])
        while True:
            yield Answer(Trusted(await queue.get()), 1, ())

    async def sign(self, request: str, token: str) -> SignedLeaf:
        self.tokens.append(token)
        identity = certificates.read_request(request).identity
        self.asked.append(identity.uri.rpartition("/")[2])
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if self.refusal is not None:
            raise self.refusal
        self.index += 1
        pem = certificates.sign_leaf(self.root.root, self.key, request, identity, self.life, time.time(), self.index)
        found = certificates.read_certificate(pem)
        return SignedLeaf(
            pem, found.serial_number, identity.uri, found.not_before, found.not_after, self.root.id, self.index
        )


async def no_roots() -> AsyncGenerator[Answer[Trusted], None]:
    """What an agent hears whose servers are away."""
    await asyncio.Event().wait()
    yield Answer(Trusted([]), 0, ())


def made(authority: Authority, folder: Path | None = None, chance: float = 0.5) -> Leaves:
    leaves = Leaves("dc1", LeafFiles(folder), authority.sign, authority.roots, chance=lambda: chance)
    leaves.start()
    return leaves


async def test_a_leaf_is_for_its_service_and_key_and_signed_by_the_root() -> None:
    authority = Authority()
    leaves = made(authority)
    leaf = await leaves.get("web")
    assert leaf.uri == f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/web"
    assert certificates.belongs_to(leaf.certificate, leaf.key)
    assert certificates.signed_by(leaf.certificate, authority.root.root)
    assert leaf.authority == authority.root.signing_key_id
    assert "BEGIN EC PRIVATE KEY" in leaf.key
    assert leaf.create_index == leaf.modify_index == 11
    assert leaf.valid_after <= time.time() < leaf.valid_before
    await leaves.close()


async def test_many_who_ask_for_one_service_cost_one_signing() -> None:
    authority = Authority()
    leaves = made(authority)
    found = await asyncio.gather(*(leaves.get("web") for _ in range(50)))
    assert len({leaf.serial for leaf in found}) == 1
    assert authority.asked == ["web"]
    await leaves.close()


async def test_a_thousand_services_asked_at_once_are_signed_a_few_at_a_time() -> None:
    authority = Authority()
    leaves = made(authority)
    async with asyncio.timeout(PATIENCE):
        found = await asyncio.gather(*(leaves.get(f"s{number}") for number in range(1000)))
    assert {leaf.service for leaf in found} == {f"s{number}" for number in range(1000)}
    assert len(authority.asked) == 1000
    assert authority.most_at_once <= 4
    await leaves.close()


async def test_whoever_waits_by_index_is_woken_by_the_next_leaf() -> None:
    authority = Authority()
    leaves = made(authority, chance=0.0)
    first = await leaves.get("web")
    waiting = asyncio.ensure_future(leaves.get("web", index=first.modify_index, wait=PATIENCE))
    async with aclosing(leaves.follow("web")) as followed:
        assert (await anext(followed)) == first
        authority.rotate()
        second = await waiting
        assert second.modify_index > first.modify_index
        assert certificates.signed_by(second.certificate, authority.root.root)
        assert (await anext(followed)) == second
    assert await leaves.get("web", index=second.modify_index, wait=0.01) == second
    assert await leaves.get("web", index=999, wait=PATIENCE) == second  # an index that was never given
    await leaves.close()


async def test_what_is_kept_is_for_the_agent_alone_and_served_while_the_servers_are_away(tmp_path: Path) -> None:
    authority, folder = Authority(), tmp_path / "leaves"
    leaves = made(authority, folder)
    first = await leaves.get("web")
    await leaves.get("db")
    await leaves.close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()} == {0o600}
    assert len([path for path in folder.iterdir() if path.is_file()]) == 3  # with the roots

    authority.refusal = NoLeader()
    again = Leaves("dc1", LeafFiles(folder), authority.sign, no_roots)
    again.start()
    assert await again.get("web") == first
    assert [root.id for root in again.roots] == [authority.root.id]
    with pytest.raises(NoLeader):
        await again.get("new")
    assert await again.get("web") == first
    assert again.trouble == "No cluster leader"
    await again.close()


async def test_a_file_that_cannot_be_used_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority, folder = Authority(), tmp_path / "leaves"
    leaves = made(authority, folder)
    mine = await leaves.get("web")
    await leaves.get("db")
    await leaves.close()
    files = [path for path in _files(folder) if path.name != "roots.json"]
    files[0].write_bytes(files[0].read_bytes()[:100])
    files[1].write_bytes(files[1].read_bytes().replace(b"svc/", b"xvc/"))
    (folder / "roots.json").write_bytes(b"{")
    again = made(authority, folder)
    assert again.states() == {}
    assert sum(str(folder) in str(vars(record)) for record in caplog.records) == 3
    assert (await again.get("web")).serial != mine.serial
    await again.close()


async def test_another_datacenters_leaves_are_not_taken_over(tmp_path: Path) -> None:
    authority = Authority()
    leaves = made(authority, tmp_path / "leaves")
    await leaves.get("web")
    await leaves.close()
    moved = Leaves("dc2", LeafFiles(tmp_path / "leaves"), authority.sign, authority.roots)
    moved.start()
    assert moved.states() == {}
    assert "/dc/dc2/" in (await moved.get("web")).uri
    await moved.close()


async def test_a_rate_limit_is_waited_out_and_a_refusal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority()
    leaves = made(authority)
    await leaves.get("db")
    authority.refusal = SigningLimited()
    waiting = asyncio.ensure_future(leaves.get("web"))
    await soon(lambda: leaves.failed, "a first try")
    assert not waiting.done()
    authority.refusal = None
    assert (await waiting).service == "web"
    authority.refusal = InvalidRequest("not you")
    with pytest.raises(InvalidRequest, match="not you"):
        await leaves.get("other")
    monkeypatch.setattr(leaves_module, "PATIENCE", 0.01)
    authority.refusal = SigningLimited()
    with pytest.raises(SigningLimited):
        await leaves.get("third")
    await leaves.close()


async def test_an_expired_leaf_is_not_handed_out_and_the_error_says_since_when() -> None:
    authority = Authority()
    wall = time.time()
    leaves = Leaves("dc1", LeafFiles(None), authority.sign, authority.roots, wall=lambda: wall)
    leaves.start()
    leaf = await leaves.get("web")
    authority.refusal = NoLeader()
    wall += 2 * TTL
    ended = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(leaf.valid_before))
    with pytest.raises(LictorError, match=f"web ended at {ended}, and no other can be had: No cluster leader"):
        await leaves.get("web")
    await leaves.close()


async def test_a_leaf_is_signed_by_the_rights_of_the_last_who_asked() -> None:
    authority = Authority()
    leaves = made(authority, chance=0.0)
    leaf = await leaves.get("web", token="one")
    await leaves.get("web", token="two")
    authority.rotate()
    await leaves.get("web", token="two", index=leaf.modify_index, wait=PATIENCE)
    assert authority.tokens == ["one", "two"]
    await leaves.close()


async def test_it_is_told_apart_whether_the_servers_or_their_authority_are_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leaves_module, "ROOTS_PATIENCE", 0.01)
    authority = Authority()

    async def none_yet() -> AsyncGenerator[Answer[Trusted], None]:
        yield Answer(Trusted([]), 1, ())
        await asyncio.Event().wait()

    for roots, words in ((no_roots, "No cluster leader"), (none_yet, "CA is uninitialized")):
        leaves = Leaves("dc1", LeafFiles(None), authority.sign, roots)
        leaves.start()
        with pytest.raises(LictorError, match=words):
            await leaves.get("web")
        with pytest.raises(LictorError, match=words):
            await leaves.trusted()
        await leaves.close()


async def test_what_is_signed_for_another_key_is_refused() -> None:
    authority = Authority()
    other = await authority.sign(certificates.make_request(certificates.make_key(), _identity("web")), "")

    async def sign(request: str, token: str) -> SignedLeaf:
        return other

    leaves = Leaves("dc1", LeafFiles(None), sign, authority.roots)
    leaves.start()
    with pytest.raises(Refused, match="another key or name"):
        await leaves.get("web")
    await leaves.close()


async def test_names_that_no_certificate_can_have_are_refused_in_consuls_words() -> None:
    leaves = made(Authority())
    with pytest.raises(Refused, match="URI must be either service or agent"):
        await leaves.get("")
    with pytest.raises(Refused, match="SPIFFE ID is not in the expected format: spiffe://.*/svc/we/b"):
        await leaves.get("we/b")
    for name in ("x" * 2000, "\U0001f600" * 200):
        with pytest.raises(InvalidRequest, match="more than 2048 bytes"):
            await leaves.get(name)
    assert (await leaves.get("x" * 1900)).service == "x" * 1900
    assert "%F0%9F%98%80" in (await leaves.get("\U0001f600 \n")).uri
    await leaves.close()


async def test_the_log_says_that_nothing_is_signed_and_when_it_is_again_and_shows_no_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", "lictor")
    authority = Authority()
    leaves = made(authority)
    leaf: Leaf = await leaves.get("web")
    authority.refusal = NoLeader()
    for _ in range(3):
        with pytest.raises(NoLeader):
            await leaves.get("db")
    lines = [str(vars(record)) for record in caplog.records]
    assert sum("no certificates are signed at present" in line for line in lines) == 1
    authority.refusal = None
    await leaves.get("db")
    lines = [str(vars(record)) for record in caplog.records]
    assert sum("certificates are signed again" in line for line in lines) == 1
    assert not any("PRIVATE" in line or leaf.key.splitlines()[1] in line for line in lines)
    await leaves.close()


async def test_whoever_waits_when_the_agent_ends_is_told() -> None:
    authority = Authority()
    authority.refusal = SigningLimited()
    leaves = made(authority)
    waiting = asyncio.ensure_future(leaves.get("web"))
    await soon(lambda: leaves.failed, "a first try")
    await leaves.close()
    with pytest.raises(NoLeader):
        await waiting


def _identity(service: str) -> ServiceId:
    return ServiceId(DOMAIN, "dc1", service)


def _files(folder: Path) -> list[Path]:
    """The files of the leaves and of the roots, without those that tell what was signed."""
    return [path for path in folder.iterdir() if path.is_file()]
