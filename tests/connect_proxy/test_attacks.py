"""The whole way at once, attacked: a real agent's authority and intentions, a real proxy process, and somebody on the
network who has whatever a compromised service has. All is refused, the log says why, and none of it harms others.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import random
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.agent.processes import Process
from tests.connect_proxy.processes import Echo, Proxy, ask, intend, register
from tests.patience import PATIENCE, eventually
from tests.ports import free_port

HOUR = datetime.timedelta(hours=1)


class Place:
    """An agent, the service web behind its sidecar, and the intention that only client may call it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.agent = Process(folder)
        self.echo = Echo("web")
        self.proxies: list[Proxy] = []
        self.files = 0

    def begin(self) -> None:
        """Start all of it, and wait until client is let in."""
        self.agent.start()
        self.port = register(self.agent, "web", self.echo.port)
        intend(self.agent, "web", client="allow", any="deny")
        self.proxy = Proxy(self.folder, "web", self.agent, "-sidecar-for=web", "-log-level=debug")
        self.proxies.append(self.proxy)
        self.client, self.stranger = self.leaf("client"), self.leaf("stranger")
        eventually(self.serves, "client is let in")
        eventually(lambda: not self.get(self.of(self.stranger))[0], "and nobody else, once the intention is there")

    def close(self) -> None:
        """End all of it."""
        for proxy in self.proxies:
            proxy.close()
        self.agent.close()
        self.echo.close()

    def leaf(self, service: str) -> dict[str, Any]:
        """A service's certificate and key, as whoever may write the service gets them."""
        found: dict[str, Any] = self.agent.get(f"/v1/agent/connect/ca/leaf/{service}")
        return found

    @property
    def root(self) -> str:
        """The mesh's root."""
        roots = self.agent.get("/v1/agent/connect/ca/roots")
        return str(roots["Roots"][0]["RootCert"])

    def file(self, *texts: str) -> str:
        """A file with these texts."""
        self.files += 1
        path = self.folder / f"file-{self.files}.pem"
        path.write_text("".join(texts))
        return str(path)

    def context(self, certificate: str = "", key: str = "") -> ssl.SSLContext:
        """The TLS of somebody who shows a certificate and does not mind whom it talks to."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if certificate:
            context.load_cert_chain(self.file(certificate, key))
        return context

    def of(self, leaf: dict[str, Any]) -> ssl.SSLContext:
        """The TLS of a service."""
        return self.context(leaf["CertPEM"], leaf["PrivateKeyPEM"])

    def get(
        self, context: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> tuple[bytes, ssl.SSLSession | None]:
        """What the service says on a connection, and the session; nothing where the connection is refused. With TLS
        1.3 the refusal comes after the client's handshake.
        """
        try:
            with (
                socket.create_connection(("127.0.0.1", self.port), PATIENCE) as plain,
                context.wrap_socket(plain, session=session) as secure,
            ):
                secure.sendall(b"hello")
                return secure.recv(100), secure.session
        except OSError:
            return b"", None

    def serves(self) -> bool:
        """Whether client is let in."""
        return self.get(self.of(self.client))[0] == b"web: hello"

    def refuses(self, context: ssl.SSLContext, reason: str) -> None:
        """See that a connection is refused, the log says why, and client is let in all the same."""
        before = self.proxy.log().count(reason)
        assert self.get(context)[0] == b""
        eventually(
            lambda: self.proxy.log().count(reason) > before, f"the log says {reason!r}: {self.proxy.log()[-2000:]}"
        )
        assert self.serves()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("attacks"))
    try:
        place.begin()
        yield place
    finally:
        place.close()


def forged(
    like: str, issuer: x509.Name, signer: ec.EllipticCurvePrivateKey, *, authority: bool = False
) -> tuple[str, str]:
    """A certificate with the names and extensions of another one, by any signer, with its key."""
    model = x509.load_pem_x509_certificate(like.encode())
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(model.subject)
        .issuer_name(issuer)
        .public_key(signer.public_key() if authority else key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - HOUR)
        .not_valid_after(now + HOUR)
    )
    for extension in model.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return pem(builder.sign(signer, hashes.SHA256())), pem_of_key(signer if authority else key)


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def pem_of_key(key: ec.EllipticCurvePrivateKey) -> str:
    kind, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, kind, plain).decode()


def key_of(leaf: dict[str, Any]) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(leaf["PrivateKeyPEM"].encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def test_the_right_authority_but_another_service(place: Place) -> None:
    place.refuses(place.of(place.stranger), "stranger")


def test_no_certificate(place: Place) -> None:
    place.refuses(place.context(), "handshake")


def test_an_authority_that_looks_like_ours_to_the_last_extension(place: Place) -> None:
    own = ec.generate_private_key(ec.SECP256R1())
    name = x509.load_pem_x509_certificate(place.root.encode()).subject
    root, _ = forged(place.root, name, own, authority=True)
    certificate, key = forged(place.client["CertPEM"], name, own)
    place.refuses(place.context(certificate, key), "handshake")
    place.refuses(place.context(certificate + root, key), "handshake")


def test_a_leaf_that_plays_the_authority(place: Place) -> None:
    leaf = place.stranger["CertPEM"]
    issuer = x509.load_pem_x509_certificate(leaf.encode()).subject
    certificate, key = forged(place.client["CertPEM"], issuer, key_of(place.stranger))
    place.refuses(place.context(certificate + leaf, key), "handshake")
    place.refuses(place.context(certificate + leaf + place.root, key), "handshake")


def test_a_chain_of_certificates_without_end(place: Place) -> None:
    own = ec.generate_private_key(ec.SECP256R1())
    name = x509.load_pem_x509_certificate(place.root.encode()).subject
    many = "".join(forged(place.root, name, own, authority=True)[0] for _ in range(200))
    before = place.proxy.log().count("handshake")
    assert place.get(place.context(place.client["CertPEM"] + many, place.client["PrivateKeyPEM"]))[0] == b""
    eventually(lambda: place.proxy.log().count("handshake") > before, "the log says that the handshake was refused")
    assert place.serves()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_is_stolen_is_of_no_use_once_the_service_is_deregistered(place: Place, version: ssl.TLSVersion) -> None:
    """With key, certificate and a live session; the service itself comes back with another key."""
    place.agent.put("/v1/agent/service/register", {"Name": "leaver", "Port": 1})
    stolen = place.leaf("leaver")
    intend(place.agent, "web", client="allow", leaver="allow", any="deny")
    context = place.of(stolen)
    context.maximum_version = version
    eventually(lambda: place.get(context)[0] == b"web: hello", "leaver is let in")
    session = place.get(context)[1]
    assert session is not None
    with socket.create_connection(("127.0.0.1", place.port), PATIENCE) as plain, context.wrap_socket(plain) as live:
        live.sendall(b"hello")
        assert live.recv(100) == b"web: hello"
        place.agent.put("/v1/agent/service/deregister/leaver", None)
        with contextlib.suppress(OSError):
            assert live.recv(100) == b"", "the connection is cut"
    assert place.get(context)[0] == b""
    assert place.get(context, session)[0] == b"", "a session is not let in either"
    place.refuses(context, "has been revoked")
    question = {"Target": "web", "ClientCertURI": stolen["ServiceURI"], "ClientCertSerial": stolen["SerialNumber"]}
    answer = json.loads(place.agent.ask("POST", "/v1/agent/connect/authorize", question)[1])
    assert answer == {"Authorized": False, "Reason": "The certificate has been revoked"}
    assert stolen["SerialNumber"] in place.agent.get("/v1/connect/ca/roots")["Revoked"]
    place.agent.put("/v1/agent/service/register", {"Name": "leaver", "Port": 1})
    fresh = place.leaf("leaver")
    assert fresh["PrivateKeyPEM"] != stolen["PrivateKeyPEM"]
    assert place.get(place.of(fresh))[0] == b"web: hello"
    assert place.get(context)[0] == b"", "what was stolen is refused all the same"
    place.agent.put("/v1/agent/service/deregister/leaver", None)
    intend(place.agent, "web", client="allow", any="deny")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_is_stolen_is_good_until_an_intention_forbids_it(place: Place, version: ssl.TLSVersion) -> None:
    """A certificate of a service that is registered nowhere is good until an intention forbids it."""
    stolen = place.leaf("former")
    intend(place.agent, "web", client="allow", former="allow", any="deny")
    context = place.of(stolen)
    context.maximum_version = version
    eventually(lambda: place.get(context)[0] == b"web: hello", "former is let in")
    session = place.get(context)[1]
    assert session is not None
    with socket.create_connection(("127.0.0.1", place.port), PATIENCE) as plain, context.wrap_socket(plain) as live:
        live.sendall(b"hello")
        assert live.recv(100) == b"web: hello"
        intend(place.agent, "web", client="allow", any="deny")
        with contextlib.suppress(OSError):
            assert live.recv(100) == b"", "the connection is cut"
    assert place.get(context)[0] == b""
    assert place.get(context, session)[0] == b"", "a session is not let in either"
    assert place.serves()


OLD: list[tuple[str, Callable[[ssl.SSLContext], None]]] = [
    ("TLS 1.0", lambda context: versions(context, ssl.TLSVersion.TLSv1)),
    ("TLS 1.1", lambda context: versions(context, ssl.TLSVersion.TLSv1_1)),
    ("no encryption", lambda context: ciphers(context, "eNULL:aNULL:@SECLEVEL=0")),
    ("no forward secrecy", lambda context: ciphers(context, "kRSA:@SECLEVEL=0")),
    ("CBC", lambda context: ciphers(context, "ECDHE+AES+SHA:@SECLEVEL=0")),
]


def versions(context: ssl.SSLContext, only: ssl.TLSVersion) -> None:
    with pytest.warns(DeprecationWarning):
        context.minimum_version = only
    with pytest.warns(DeprecationWarning):
        context.maximum_version = only
    context.set_ciphers("ALL:@SECLEVEL=0")


def ciphers(context: ssl.SSLContext, text: str) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(text)


@pytest.mark.parametrize("weaken", [weaken for _, weaken in OLD], ids=[name for name, _ in OLD])
def test_a_downgrade(place: Place, weaken: Callable[[ssl.SSLContext], None]) -> None:
    context = place.of(place.client)
    weaken(context)
    place.refuses(context, "handshake")


def test_renegotiation(place: Place) -> None:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("needs the program openssl, which renegotiates when told to")
    mine = place.file(place.client["CertPEM"], place.client["PrivateKeyPEM"])
    command = [program, "s_client", "-connect", f"127.0.0.1:{place.port}", "-tls1_2", "-cert", mine, "-key", mine]
    output = place.folder / "s_client.log"
    with output.open("wb") as log:
        client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)
        try:
            assert client.stdin is not None
            eventually(lambda: "Verify return code" in output.read_text(errors="replace"), "it is connected")
            client.stdin.write(b"R\n")
            client.stdin.flush()
            client.wait(PATIENCE)
        finally:
            client.kill()
            client.wait(PATIENCE)
            assert client.stdin is not None
            client.stdin.close()
    said = output.read_text(errors="replace")
    assert "RENEGOTIATING" in said and "no renegotiation" in said, said[-1000:]
    assert place.serves()


def open_files(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


def test_many_who_only_begin_and_dribble(place: Place) -> None:
    """A hundred connections, each with a byte of a handshake now and then: who is let in does not notice."""
    hello = bytes.fromhex("160301020001 0001fc0303") + bytes(500)
    idle = open_files(place.proxy.process.pid)
    crowd = [socket.create_connection(("127.0.0.1", place.port), PATIENCE) for _ in range(100)]
    ended = threading.Event()

    def dribble() -> None:
        for at in range(len(hello)):
            for each in crowd:
                with contextlib.suppress(OSError):
                    each.send(hello[at : at + 1])
            if ended.wait(0.05):
                return

    thread = threading.Thread(target=dribble)
    thread.start()
    try:
        for _ in range(20):
            assert place.serves()
    finally:
        ended.set()
        thread.join()
        for each in crowd:
            each.close()
    eventually(lambda: open_files(place.proxy.process.pid) <= idle + 10, "the proxy has let go of all of them")
    assert place.serves()


@pytest.mark.parametrize("seed", range(5))
def test_bytes_of_no_meaning(place: Place, seed: int) -> None:
    chance = random.Random(seed)
    beginnings = [
        b"",
        b"GET / HTTP/1.1\r\nHost: web\r\n\r\n",
        b"\x16\x03\x01",
        b"\x16\x03\x03\x40\x00",
        b"\x80\x2e\x01",
    ]
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", place.port), PATIENCE) as sock, contextlib.suppress(OSError):
            sock.sendall(chance.choice(beginnings) + chance.randbytes(chance.choice([0, 5, 1000, 200_000])))
            sock.shutdown(socket.SHUT_WR)
            while data := sock.recv(4096):
                assert b"web" not in data
    assert place.serves()


def test_an_impostor_among_the_instances_hears_nothing(place: Place) -> None:
    """Somebody has an address of its own in the catalog as an instance: client's proxy tells it nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    heard: list[bytes] = []
    tried = threading.Event()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place.file(place.stranger["CertPEM"], place.stranger["PrivateKeyPEM"]))

    def listen() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                try:
                    with context.wrap_socket(connection, server_side=True) as secure:
                        heard.append(secure.recv(100))
                except OSError:
                    connection.close()
                tried.set()

    thread = threading.Thread(target=listen)
    thread.start()
    local = free_port()
    try:
        body = {
            "Node": "elsewhere",
            "Address": "127.0.0.1",
            "Service": {
                "Kind": "connect-proxy",
                "ID": "web-impostor",
                "Service": "web-impostor",
                "Address": "127.0.0.1",
                "Port": listener.getsockname()[1],
                "Proxy": {"DestinationServiceName": "shop"},
            },
        }
        place.agent.put("/v1/catalog/register", body)
        register(place.agent, "client", free_port(), upstreams={local: "shop"})
        client = Proxy(place.folder, "client", place.agent, "-sidecar-for=client", "-log-level=debug")
        place.proxies.append(client)
        client.says("Starting listener")

        def is_tried() -> bool:
            assert ask(local, b"a secret") == b""
            return tried.is_set()

        eventually(is_tried, "the impostor is tried")
        assert not any(heard), "not a byte may reach it"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
