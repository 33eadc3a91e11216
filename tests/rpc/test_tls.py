"""TLS between agents: who is let in, whom an agent believes, and what the configuration must hold for it."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from lictor.agent.config import RuntimeConfig
from lictor.agent.config.security import Tls, TlsDefaults, TlsProtocol
from lictor.agent.rpc_tls import rpc_tls
from lictor.model.errors import Forbidden, LictorError
from lictor.model.transport import Caller, OnMessage, Unreachable
from lictor.rpc.limits import Limits
from lictor.rpc.network import Network
from lictor.rpc.security import Security
from tests.rpc.certificates import Authority, authority
from tests.rpc.networks import DEADLINE, address, echo, network, on_both_loops, until, until_called

MUTUAL = {"verify_incoming": True, "verify_outgoing": True}
STRICT = {**MUTUAL, "verify_server_hostname": True}
PLAIN = TlsDefaults()


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return authority(tmp_path / "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Authority:
    return authority(tmp_path / "theirs")


def config(settings: TlsDefaults, own: TlsProtocol | None = None) -> RuntimeConfig:
    return RuntimeConfig(tls=Tls(defaults=settings, internal_rpc=own or TlsProtocol()))


@asynccontextmanager
async def agent(settings: TlsDefaults, limits: Limits | None = None) -> AsyncIterator[Network]:
    """The network of an agent with these settings, which says to callers how it knows them."""
    async with network(limits, rpc_tls(config(settings))) as made:

        async def names(caller: Caller, body: bytes) -> bytes:
            return ",".join(caller.names).encode()

        made.on_call("names", names)
        made.on_call("echo", echo)
        yield made


async def call(caller: Network, callee: Network, method: str = "names") -> bytes:
    return await caller.call(await address(callee), method, b"", DEADLINE)


@on_both_loops
async def test_servers_of_one_authority_know_each_other(ours: Authority) -> None:
    async with (
        agent(ours.settings("-server", "-node=s1", **STRICT)) as caller,
        agent(ours.settings("-server", **STRICT)) as callee,
    ):
        assert await call(caller, callee) == b"server.dc1.consul,s1.server.dc1.consul,localhost"


@on_both_loops
async def test_much_goes_over_tls_in_order(ours: Authority) -> None:
    settings = ours.settings("-server", **STRICT)
    async with agent(settings) as caller, agent(settings) as callee:
        got: list[bytes] = []
        callee.on_message("data", lambda _, body: got.append(body))
        to = await address(callee)
        sent = [bytes([number]) * 100_000 for number in range(100)]
        for body in sent[:30]:
            assert caller.send(to, "data", body)
        await caller.call(to, "echo", b"", DEADLINE)
        for body in sent[30:]:
            assert caller.send(to, "data", body)
        await until(lambda: len(got) == len(sent))
        assert got == sent


@on_both_loops
async def test_a_server_of_another_authority_is_not_believed(ours: Authority, theirs: Authority) -> None:
    async with (
        agent(ours.settings("-server", **MUTUAL)) as caller,
        agent(theirs.settings("-server", verify_outgoing=True)) as callee,
    ):
        with pytest.raises(Unreachable, match="certificate"):
            await call(caller, callee)


@on_both_loops
async def test_a_caller_of_another_authority_is_turned_away(ours: Authority, theirs: Authority) -> None:
    stranger = msgspec.structs.replace(theirs.settings("-server", **MUTUAL), ca_file=ours.ca_file)
    async with agent(stranger) as caller, agent(ours.settings("-server", **MUTUAL)) as callee:
        with pytest.raises(Unreachable):
            await call(caller, callee)


@on_both_loops
async def test_a_caller_without_a_certificate_is_turned_away(ours: Authority) -> None:
    async with (
        agent(TlsDefaults(ca_file=ours.ca_file, verify_outgoing=True)) as caller,
        agent(ours.settings("-server", **MUTUAL)) as callee,
    ):
        with pytest.raises(Unreachable):
            await call(caller, callee)


@on_both_loops
async def test_a_caller_without_tls_is_turned_away(ours: Authority) -> None:
    async with agent(PLAIN) as caller, agent(ours.settings("-server", **MUTUAL)) as callee:
        with pytest.raises(Unreachable):
            await call(caller, callee)


@on_both_loops
async def test_a_server_without_tls_is_not_believed(ours: Authority) -> None:
    async with agent(ours.settings("-server", **MUTUAL)) as caller, agent(PLAIN) as callee:
        with pytest.raises(Unreachable):
            await call(caller, callee)


@on_both_loops
async def test_a_server_must_be_named_as_one(ours: Authority) -> None:
    async with (
        agent(ours.settings("-server", **STRICT)) as caller,
        agent(ours.settings("-client", **STRICT)) as callee,
    ):
        with pytest.raises(Unreachable, match="[Hh]ostname mismatch"):
            await call(caller, callee)


@on_both_loops
async def test_a_server_of_another_datacenter_is_not_believed(ours: Authority) -> None:
    async with (
        agent(ours.settings("-server", **STRICT)) as caller,
        agent(ours.settings("-server", "-dc=dc2", **STRICT)) as callee,
    ):
        with pytest.raises(Unreachable, match="[Hh]ostname mismatch"):
            await call(caller, callee)


@on_both_loops
async def test_without_the_names_any_certificate_of_the_authority_will_do(ours: Authority) -> None:
    async with (
        agent(ours.settings("-client", **MUTUAL)) as caller,
        agent(ours.settings("-server", "-dc=dc2", **MUTUAL)) as callee,
    ):
        assert await call(caller, callee) == b"client.dc1.consul,localhost"


@on_both_loops
async def test_a_client_cannot_do_what_servers_do(ours: Authority) -> None:
    async with (
        agent(ours.settings("-client", **STRICT)) as caller,
        agent(ours.settings("-server", **STRICT)) as callee,
    ):
        got: list[bytes] = []
        callee.on_message("data", lambda _, body: got.append(body))
        to = await address(callee)
        caller.send(to, "data", b"")
        with pytest.raises(Forbidden, match=r"names needs a certificate for server\.dc1\.consul"):
            await caller.call(to, "names", b"", DEADLINE)
        assert got == []


def _kept(got: list[bytes]) -> OnMessage:
    return lambda _, body: got.append(body)


async def _pieces(caller: Caller, body: bytes) -> AsyncIterator[bytes]:
    yield body


@on_both_loops
async def test_a_client_can_do_what_is_open_to_all_agents_and_only_in_the_way_that_is(ours: Authority) -> None:
    async with (
        agent(ours.settings("-client", **STRICT)) as caller,
        agent(ours.settings("-server", **STRICT)) as callee,
    ):
        got: list[bytes] = []
        callee.on_message("shared", lambda _, body: got.append(body), agents=True)
        callee.on_call("shared", echo, agents=True)
        callee.on_stream("shared", _pieces, agents=True)
        callee.on_call("half", echo)
        callee.on_stream("half", _pieces, agents=True)
        to = await address(callee)
        assert caller.send(to, "shared", b"message")
        assert await caller.call(to, "shared", b"call", DEADLINE) == b"call"
        assert [piece async for piece in caller.stream(to, "shared", b"stream")] == [b"stream"]
        assert got == [b"message"]
        assert [piece async for piece in caller.stream(to, "half", b"stream")] == [b"stream"]
        with pytest.raises(Forbidden, match=r"half needs a certificate for server\.dc1\.consul"):
            await caller.call(to, "half", b"", DEADLINE)


@on_both_loops
async def test_the_last_that_is_said_of_a_method_holds(ours: Authority) -> None:
    async with (
        agent(ours.settings("-client", **STRICT)) as caller,
        agent(ours.settings("-server", **STRICT)) as callee,
    ):
        to = await address(callee)
        callee.on_call("echo", echo, agents=True)
        assert await caller.call(to, "echo", b"hello", DEADLINE) == b"hello"
        callee.on_call("echo", echo)
        with pytest.raises(Forbidden):
            await caller.call(to, "echo", b"", DEADLINE)


@on_both_loops
async def test_what_is_open_to_all_agents_is_closed_to_strangers(ours: Authority, theirs: Authority) -> None:
    stranger = msgspec.structs.replace(theirs.settings("-server", **MUTUAL), ca_file=ours.ca_file)
    for settings in (stranger, TlsDefaults(ca_file=ours.ca_file, verify_outgoing=True), PLAIN):
        async with agent(settings) as caller, agent(ours.settings("-server", **STRICT)) as callee:
            got: list[bytes] = []
            callee.on_message("shared", _kept(got), agents=True)
            callee.on_call("shared", echo, agents=True)
            with pytest.raises(Unreachable):
                await call(caller, callee, "shared")
            assert got == []


@on_both_loops
async def test_a_name_with_a_star_covers_the_servers(ours: Authority) -> None:
    settings = ours.settings("-client", "-additional-dnsname=*.dc1.consul", **STRICT)
    async with agent(settings) as caller, agent(settings) as callee:
        assert await call(caller, callee) == b"client.dc1.consul,localhost,*.dc1.consul"


@on_both_loops
async def test_on_the_way_to_tls_both_kinds_of_callers_are_let_in(ours: Authority) -> None:
    async with (
        agent(PLAIN) as plain,
        agent(ours.settings("-server", verify_outgoing=True)) as sealed,
        agent(ours.settings("-server")) as callee,
    ):
        to = await address(callee)
        for caller in (plain, sealed):
            assert await caller.call(to, "echo", b"hello", DEADLINE) == b"hello"


@on_both_loops
async def test_who_shows_no_certificate_has_no_name(ours: Authority) -> None:
    named = {"verify_outgoing": True, "verify_server_hostname": True}
    async with (
        agent(PLAIN) as plain,
        agent(ours.settings("-server", **named)) as sealed,
        agent(ours.settings("-server", **named)) as callee,
    ):
        to = await address(callee)
        assert await sealed.call(to, "names", b"", DEADLINE) == b"server.dc1.consul,localhost"
        with pytest.raises(Forbidden):
            await plain.call(to, "names", b"", DEADLINE)


# One side with TLS, the other without


def lines(caplog: pytest.LogCaptureFixture, words: str) -> int:
    return sum(words in record.getMessage() for record in caplog.records)


@on_both_loops
async def test_a_plain_caller_of_a_server_with_tls_is_told_in_words_and_so_is_the_server(
    ours: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    again = Limits(retry=0.001, retry_most=0.001)
    async with agent(PLAIN, again) as caller, agent(ours.settings("-server", **MUTUAL)) as callee:
        to = await address(callee)
        for _ in range(10):
            with pytest.raises(Unreachable, match=r"it speaks TLS .*: check tls\.internal_rpc\.verify_outgoing here"):
                await caller.call(to, "echo", b"", DEADLINE)
        await until(lambda: lines(caplog, "it does not speak TLS"))
    assert lines(caplog, "check tls.internal_rpc.verify_outgoing there and tls.internal_rpc.verify_incoming here") < 10
    assert lines(caplog, "check tls.internal_rpc.verify_outgoing here and tls.internal_rpc.verify_incoming there") == 1


@on_both_loops
async def test_a_caller_with_tls_of_a_plain_server_is_told_in_words_and_so_is_the_server(
    ours: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    again = Limits(retry=0.001, retry_most=0.001)
    async with agent(ours.settings("-server", **MUTUAL), again) as caller, agent(PLAIN) as callee:
        to = await address(callee)
        for _ in range(10):
            with pytest.raises(Unreachable, match="the other side does not speak TLS: check"):
                await caller.call(to, "echo", b"", DEADLINE)
        await until(lambda: lines(caplog, "it speaks TLS where a plain connection was expected"))
    assert lines(caplog, "check tls.internal_rpc.cert_file and key_file here") < 10
    assert lines(caplog, "the other side does not speak TLS: check tls.internal_rpc.cert_file") == 1


@on_both_loops
async def test_a_caller_without_a_certificate_is_told_in_words_and_so_is_the_server(
    ours: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        agent(TlsDefaults(ca_file=ours.ca_file, verify_outgoing=True)) as caller,
        agent(ours.settings("-server", **MUTUAL)) as callee,
    ):
        with pytest.raises(Unreachable):
            await call(caller, callee)
        await until(lambda: lines(caplog, "it showed no certificate: check tls.internal_rpc.cert_file"))


@on_both_loops
async def test_words_about_tls_are_not_lost_among_other_strangers(
    ours: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with agent(ours.settings("-server")) as flooded, agent(ours.settings("-server", **MUTUAL)) as callee:
        host, port = (await address(flooded)).split(":")
        for _ in range(20):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET / HTTP/1.0")
            writer.close()
        async with agent(PLAIN) as caller:
            with pytest.raises(Unreachable):
                await call(caller, callee)
        await until(lambda: lines(caplog, "it does not speak TLS, and nothing else is taken here"))


@pytest.mark.parametrize("begin", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00", b"Lictor"])
@on_both_loops
async def test_who_begins_and_does_not_go_on_is_cut_off(ours: Authority, begin: bytes) -> None:
    settings = {"first": ours.settings("-server"), "second": ours.settings("-server", **MUTUAL)}
    for tls in settings.values():
        async with agent(tls, Limits(setup=0.2)) as callee:
            host, port = (await address(callee)).split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(begin)
            async with asyncio.timeout(DEADLINE):
                try:
                    await reader.read()
                except ConnectionError:
                    pass
            writer.close()


@on_both_loops
async def test_what_is_changed_holds_for_new_connections(ours: Authority, theirs: Authority) -> None:
    before, after = rpc_tls(config(PLAIN)), rpc_tls(config(ours.settings("-server", **STRICT)))
    async with network(security=before) as caller, network(security=before) as callee, agent(PLAIN) as third:
        callee.on_call("echo", echo)
        to = await address(callee)
        assert await caller.call(to, "echo", b"1", DEADLINE) == b"1"
        callee.configure(after, Limits())
        assert await caller.call(to, "echo", b"2", DEADLINE) == b"2", "connections that there are stay"
        with pytest.raises(Unreachable):
            await third.call(to, "echo", b"", DEADLINE)
        third.configure(after, Limits(retry=0.001, retry_most=0.001))
        await until_called(third, to)


def test_without_a_certificate_there_is_no_tls() -> None:
    assert rpc_tls(config(PLAIN)) == Security()


def test_the_keys_of_internal_rpc_come_before_the_defaults(ours: Authority) -> None:
    common = ours.settings("-server", tls_min_version="TLSv1_2")
    made = rpc_tls(config(common, TlsProtocol(verify_incoming=True, tls_min_version="TLSv1_3")))
    assert not made.plain_too
    assert made.client_tls is None
    assert made.server_tls is not None
    assert made.server_tls.minimum_version is ssl.TLSVersion.TLSv1_3


def test_the_folder_of_authorities_is_read_file_by_file(ours: Authority, theirs: Authority, tmp_path: Path) -> None:
    folder = tmp_path / "authorities"
    folder.mkdir()
    for number, one in enumerate((ours, theirs)):
        shutil.copy(one.ca_file, folder / f"any-name-{number}.txt")
    made = rpc_tls(config(ours.settings("-server", ca_file="", ca_path=str(folder), **MUTUAL)))
    assert made.client_tls is not None
    assert len(made.client_tls.get_ca_certs()) == 2


@pytest.mark.parametrize(
    ("suite", "used"),
    [
        ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
        ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"),
        ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"),
        ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", "ECDHE-RSA-AES128-SHA256"),
        ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", "ECDHE-ECDSA-AES256-SHA"),
        ("TLS_RSA_WITH_AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
    ],
)
def test_cipher_suites_are_those_that_are_named(ours: Authority, suite: str, used: str) -> None:
    made = rpc_tls(config(ours.settings("-server", tls_cipher_suites=suite)))
    assert made.server_tls is not None
    older = [cipher["name"] for cipher in made.server_tls.get_ciphers() if cipher["protocol"] != "TLSv1.3"]
    assert older == [used]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"cert_file": "/nowhere"}, "tls.defaults.cert_file: /nowhere: No such file or directory"),
        ({"key_file": "/nowhere"}, "tls.defaults.key_file: /nowhere: No such file or directory"),
        ({"key_file": ""}, "tls.defaults.key_file is needed: TLS between agents needs this agent's certificate"),
        ({"cert_file": "", "verify_outgoing": True}, "tls.defaults.cert_file is needed: TLS between agents"),
        ({"ca_file": "/nowhere"}, "tls.defaults.ca_file: /nowhere: No such file or directory"),
        ({"ca_file": "", "ca_path": "/nowhere"}, "tls.defaults.ca_path: /nowhere: No such file or directory"),
        ({"ca_file": "", "verify_incoming": True}, "tls.defaults.verify_incoming is set, and no authorities are"),
        ({"ca_file": "", "verify_outgoing": True}, "tls.defaults.verify_outgoing is set, and no authorities are"),
        ({"tls_cipher_suites": "FOO"}, 'tls.defaults.tls_cipher_suites: unsupported cipher "FOO"'),
    ],
)
def test_what_is_wrong_is_named(ours: Authority, wrong: dict[str, object], words: str) -> None:
    with pytest.raises(LictorError) as caught:
        rpc_tls(config(ours.settings("-server", **wrong)))
    assert words in str(caught.value)


def test_files_that_hold_something_else_are_named(ours: Authority, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    good = ours.settings("-server", verify_incoming=True)
    other = ours.settings("-server")
    for wrong, words in (
        (TlsProtocol(ca_file=str(empty)), rf"tls\.internal_rpc\.ca_file: {empty} holds no certificates"),
        (TlsProtocol(cert_file=str(empty)), rf"the certificate in {empty} and the key in .* cannot be used"),
        (TlsProtocol(key_file=other.key_file), rf"{other.key_file} cannot be used: key values mismatch"),
    ):
        with pytest.raises(LictorError, match=words):
            rpc_tls(config(good, wrong))


def test_a_key_under_a_password_is_refused_and_nobody_is_asked(ours: Authority) -> None:
    from cryptography.hazmat.primitives import serialization

    settings = ours.settings("-server")
    path = Path(settings.key_file)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"secret"))
    )
    with pytest.raises(LictorError, match=r"key_file: the certificate in .* cannot be used"):
        rpc_tls(config(settings))
