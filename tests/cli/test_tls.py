"""`lictor tls`: what the certificates say, who may read the keys, and that nothing is overwritten."""

from __future__ import annotations

import datetime
import os
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.cli.command_line import here
from tests.patience import PATIENCE


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(path: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(path).read_bytes())


def names(certificate: x509.Certificate) -> tuple[list[str], list[str]]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return found.get_values_for_type(x509.DNSName), [str(ip) for ip in found.get_values_for_type(x509.IPAddress)]


def test_the_authority_is_saved_under_consuls_names_with_a_private_key() -> None:
    done = here("tls", "ca", "create")
    assert done == (0, "==> Saved consul-agent-ca.pem\n==> Saved consul-agent-ca-key.pem\n", "")
    assert os.stat("consul-agent-ca-key.pem").st_mode & 0o777 == 0o600
    assert Path("consul-agent-ca-key.pem").read_text().startswith("-----BEGIN EC PRIVATE KEY-----")
    ca = load("consul-agent-ca.pem")
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert ca.not_valid_after_utc - ca.not_valid_before_utc == datetime.timedelta(days=1825)


def test_an_existing_authority_is_never_overwritten() -> None:
    here("tls", "ca", "create")
    before = Path("consul-agent-ca-key.pem").read_bytes()
    assert here("tls", "ca", "create") == (1, "", "consul-agent-ca.pem already exists.\n")
    Path("consul-agent-ca.pem").unlink()
    assert here("tls", "ca", "create").err == "consul-agent-ca-key.pem already exists.\n"
    assert Path("consul-agent-ca-key.pem").read_bytes() == before


def test_an_authority_can_be_bound_to_names() -> None:
    done = here(
        "tls", "ca", "create", "-domain=mesh", "-days=10", "-name-constraint", "-additional-name-constraint=ui.example"
    )
    assert done.code == 0
    ca = load("mesh-agent-ca.pem")
    permitted = ca.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees
    assert [name.value for name in permitted or []] == ["ui.example", "mesh", "localhost"]
    assert here("tls", "cert", "create", "-server", "-domain=mesh").code == 0


def test_a_servers_certificate() -> None:
    here("tls", "ca", "create")
    done = here(
        "tls", "cert", "create", "-server", "-dc=dc2", "-node=a",
        "-additional-dnsname=x.y", "-additional-ipaddress=1.2.3.4", "-additional-ipaddress=::1",
    )  # fmt: skip
    assert done.code == 0
    assert "WARNING" in done.out
    assert done.out.endswith(
        "==> Using consul-agent-ca.pem and consul-agent-ca-key.pem\n"
        "==> Saved dc2-server-consul-0.pem\n==> Saved dc2-server-consul-0-key.pem\n"
    )
    certificate = load("dc2-server-consul-0.pem")
    dns, ips = names(certificate)
    assert dns == ["server.dc2.consul", "a.server.dc2.consul", "localhost", "x.y"]
    assert ips == ["127.0.0.1", "1.2.3.4", "::1"]
    certificate.verify_directly_issued_by(load("consul-agent-ca.pem"))
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    assert os.stat("dc2-server-consul-0-key.pem").st_mode & 0o777 == 0o600


def test_certificates_for_clients_and_the_command_line() -> None:
    here("tls", "ca", "create")
    assert here("tls", "cert", "create", "-client").out.endswith("==> Saved dc1-client-consul-0-key.pem\n")
    assert here("tls", "cert", "create", "-client").out.endswith("==> Saved dc1-client-consul-1-key.pem\n")
    assert here("tls", "cert", "create", "-cli").code == 0
    assert names(load("dc1-client-consul-0.pem")) == (["client.dc1.consul", "localhost"], ["127.0.0.1"])
    assert names(load("dc1-cli-consul-0.pem")) == (["cli.dc1.consul", "localhost"], [])
    assert not [x for x in load("dc1-cli-consul-0.pem").extensions if isinstance(x.value, x509.ExtendedKeyUsage)]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ([], "Please provide either -server, -client, or -cli"),
        (["-server", "-client"], "Please provide either -server, -client, or -cli"),
        (["-client", "-node=x"], "-node requires -server"),
        (["-client", "-additional-ipaddress=zz"], '"zz" is no IP address'),
        (["-client", "-additional-dnsname=bücher.example"], "xn--"),
        (["-client", "-ca=nope.pem"], "Make an authority with `lictor tls ca create`"),
        (["-client", "-ca=nope.pem"], "Error reading CA: open nope.pem: no such file or directory"),
        (["-client", "-key=nope.pem"], "Error reading CA key: open nope.pem: no such file or directory"),
        (["-client", "-key=consul-agent-ca.pem"], "consul-agent-ca.pem holds no key"),
        (["-client", "-ca=consul-agent-ca-key.pem"], "consul-agent-ca-key.pem holds no certificate"),
        (["-client", "-key=other-agent-ca-key.pem"], "does not belong to the certificate"),
        (["-client", "-days=0"], "-days must be between"),
        (["-client", "extra"], "Too many arguments"),
    ],
)
def test_what_cannot_be_signed_is_told_and_leaves_no_file(args: list[str], text: str, folder: Path) -> None:
    here("tls", "ca", "create")
    here("tls", "ca", "create", "-domain=other")
    before = sorted(folder.iterdir())
    done = here("tls", "cert", "create", *args)
    assert (done.code, done.out) == (1, "")
    assert text in done.err
    assert sorted(folder.iterdir()) == before


def test_two_agents_trust_each_other_with_these_certificates() -> None:
    here("tls", "ca", "create")
    here("tls", "cert", "create", "-server")
    here("tls", "cert", "create", "-client")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile="consul-agent-ca.pem")
    server.load_cert_chain("dc1-server-consul-0.pem", "dc1-server-consul-0-key.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile="consul-agent-ca.pem")
    client.load_cert_chain("dc1-client-consul-0.pem", "dc1-client-consul-0-key.pem")
    left, right = socket.socketpair()
    left.settimeout(PATIENCE)
    right.settimeout(PATIENCE)

    def serve() -> None:
        with server.wrap_socket(left, server_side=True) as secured:
            secured.sendall(secured.recv(100))

    thread = threading.Thread(target=serve)
    thread.start()
    with client.wrap_socket(right, server_hostname="server.dc1.consul") as secured:
        secured.sendall(b"hello")
        assert secured.recv(100) == b"hello"
    thread.join(60)
