"""A stand-in for Vault: its HTTP API on a loopback port, as far as a CA uses it, with an engine that really signs.

It can be what a real server cannot be made to be in a test: sealed and unsealed at once, slow, refusing one path, of an
older version, a standby that sends elsewhere, talking nonsense. Its clock is set forward by hand (`advance`). Written
from the documented API and from `cryptography` alone, so that no mistake of the product is repeated in it.
"""

from __future__ import annotations

import datetime
import json
import re
import ssl
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM
ROOT_TOKEN = "root-token-of-the-stand-in"
DAY = 86400.0


class Refusal(Exception):
    """An answer that is no success: its status and Vault's words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


class Issuer:
    """A certificate of a mount, with its key where the mount has that."""

    def __init__(self, certificate: x509.Certificate, key: Any = None) -> None:
        self.id = str(uuid.uuid4())
        self.certificate = certificate
        self.key = key

    @property
    def pem(self) -> str:
        """As Vault writes it: without a line's end after it."""
        return self.certificate.public_bytes(PEM).decode().strip()


class Mount:
    """A mount of the PKI engine."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = dict(config)
        self.issuers: list[Issuer] = []
        self.default: Issuer | None = None
        self.asked_keys: list[Any] = []
        self.roles: dict[str, dict[str, Any]] = {}
        self.tidied = 0


class Token:
    """A token: until when it is good, for how long at a time, and to what end at most. 0 is for ever."""

    def __init__(self, ttl: float, renewable: bool, end: float, most: float) -> None:
        self.ttl = ttl
        self.renewable = renewable
        self.end = end
        self.most = most


class VaultStandin:
    """The server. `forbidden` are patterns of `METHOD path` that get 403; `steps` are called with each such text before
    it is answered, to hold it up. `asked` is all that was asked, with its namespace: `POST pki/sign/x @team`.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, several_issuers: bool = True) -> None:
        self.lock = threading.RLock()
        self.mounts: dict[tuple[str, str], Mount] = {}
        self.namespaces: set[str] = {""}
        self.tokens: dict[str, Token] = {ROOT_TOKEN: Token(0, False, 0, 0)}
        self.logins: dict[str, Callable[[dict[str, Any]], bool]] = {}
        self.login_ttl, self.login_most, self.login_renewable = 3600.0, 0.0, True
        self.sealed = False
        self.uninitialized = False
        self.several_issuers = several_issuers
        self.forbidden: list[str] = []
        self.failing: dict[str, tuple[int, str]] = {}
        self.raw: bytes | None = None
        self.redirect = ""
        self.steps: Callable[[str], None] = lambda asked: None
        self.asked: list[str] = []
        self.tokens_seen: list[str] = []
        self.offset = 0.0
        self.alter_leaf: Callable[[x509.CertificateBuilder], x509.CertificateBuilder] = lambda builder: builder
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = False
        self.server.block_on_close = True
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.server.server_address[1]
        self.address = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=lambda: self.server.serve_forever(poll_interval=0.02))
        self.thread.start()

    def close(self) -> None:
        """Stop, as if it were killed."""
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def __enter__(self) -> VaultStandin:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def now(self) -> float:
        """Its clock."""
        return time.time() + self.offset

    def advance(self, seconds: float) -> None:
        """Set its clock forward."""
        self.offset += seconds

    def token(self, ttl: float = 0.0, *, renewable: bool = False, most: float = 0.0) -> str:
        """A new token that may do all; `most` is its whole life."""
        name = f"s.{uuid.uuid4().hex}"
        end = self.now() + ttl if ttl else 0.0
        self.tokens[name] = Token(ttl, renewable, end, self.now() + most if most else 0.0)
        return name

    def count(self, pattern: str) -> int:
        """How often that was asked."""
        return sum(bool(re.search(pattern, asked)) for asked in self.asked)

    # -- HTTP ----------------------------------------------------------------------------------------------------------

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        standin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                self._answer()

            do_POST = do_PUT = do_DELETE = do_GET

            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"{}") or {}
                status, content, headers = standin.answer(
                    self.command,
                    self.path.removeprefix("/v1/"),
                    body,
                    self.headers.get("X-Vault-Token", ""),
                    self.headers.get("X-Vault-Namespace", "").strip("/"),
                )
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(content)))
                    self.send_header("Connection", "close")
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    pass  # whoever asked has gone
                self.close_connection = True

        return Handler

    def answer(
        self, method: str, path: str, body: dict[str, Any], token: str, namespace: str
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers for a request."""
        asked = f"{method} {path}" + (f" @{namespace}" if namespace else "")
        self.asked.append(asked)
        self.tokens_seen.append(token)
        self.steps(asked)
        if self.redirect:
            return 307, b"", {"Location": f"{self.redirect}/v1/{path}"}
        if self.raw is not None:
            return 200, self.raw, {"Content-Type": "application/json"}
        with self.lock:
            try:
                found = self._answer(method, path, body, token, namespace, asked)
            except Refusal as refusal:
                text = json.dumps({"errors": [refusal.words] if refusal.words else []}).encode()
                return refusal.status, text, {"Content-Type": "application/json"}
        if found is None:
            return 204, b"", {}
        if isinstance(found, str):
            return 200 if found else 204, found.encode(), {"Content-Type": "application/pem-certificate-chain"}
        return 200, json.dumps(found).encode(), {"Content-Type": "application/json"}

    def _answer(
        self, method: str, path: str, body: dict[str, Any], token: str, namespace: str, asked: str
    ) -> dict[str, Any] | str | None:
        if self.uninitialized:
            raise Refusal(501, "Vault is not initialized")
        if self.sealed:
            raise Refusal(503, "Vault is sealed")
        for pattern, (status, words) in self.failing.items():
            if re.search(pattern, asked):
                raise Refusal(status, words)
        if namespace not in self.namespaces:
            raise Refusal(404, "namespace not found")
        if path.startswith("auth/") and "/login" in path:
            return self._log_in(path, body)
        if re.search(r"/ca/pem$|/ca_chain$", path):
            return self._public(path, namespace)
        known = self.tokens.get(token)
        if known is None or (known.end and known.end <= self.now()):
            raise Refusal(403, "permission denied")
        if any(re.search(pattern, asked) for pattern in self.forbidden):
            raise Refusal(403, "1 error occurred:\n\t* permission denied\n\n")
        if path.startswith("auth/token/"):
            return self._token(path, token, known)
        if path.startswith("sys/mounts/"):
            self._mounts(method, path.removeprefix("sys/mounts/"), body, namespace)
            return None
        mount, rest = self._mount(path, namespace)
        return self._engine(method, mount, rest, body)

    # -- tokens --------------------------------------------------------------------------------------------------------

    def _log_in(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        check = self.logins.get(path)
        if check is None:
            raise Refusal(404, f'no handler for route "{path}". route entry not found.')
        if not check(body):
            raise Refusal(400, f"invalid credentials: {json.dumps(body)}")  # some plugins repeat what they were given
        name = self.token(self.login_ttl, renewable=self.login_renewable, most=self.login_most)
        return {
            "auth": {"client_token": name, "lease_duration": int(self.login_ttl), "renewable": self.login_renewable}
        }

    def _token(self, path: str, name: str, token: Token) -> dict[str, Any] | None:
        left = max(0, round(token.end - self.now())) if token.end else 0
        match path:
            case "auth/token/lookup-self":
                data = {"ttl": left, "creation_ttl": int(token.ttl), "renewable": token.renewable, "id": name}
                return {"data": data}
            case "auth/token/renew-self":
                if not token.renewable:
                    raise Refusal(400, "lease is not renewable")
                end = self.now() + token.ttl
                token.end = min(end, token.most) if token.most else end
                left = round(token.end - self.now())
                return {"auth": {"client_token": name, "lease_duration": left, "renewable": token.renewable}}
            case "auth/token/revoke-self":
                del self.tokens[name]
                return None
        raise Refusal(404, "unsupported path")

    # -- mounts --------------------------------------------------------------------------------------------------------

    def _mounts(self, method: str, path: str, body: dict[str, Any], namespace: str) -> None:
        key = (namespace, path.removesuffix("/tune"))
        if path.endswith("/tune"):
            if key not in self.mounts:
                raise Refusal(400, "cannot fetch sysview for path")
            self.mounts[key].config.update(body)
        elif method == "DELETE":
            self.mounts.pop(key, None)
        elif key in self.mounts:
            raise Refusal(400, f"path is already in use at {path}/")
        else:
            assert body["type"] == "pki", body
            self.mounts[key] = Mount(body.get("config", {}))

    def _mount(self, path: str, namespace: str) -> tuple[Mount, str]:
        for (where, name), mount in self.mounts.items():
            if where == namespace and path.startswith(name + "/"):
                return mount, path.removeprefix(name + "/")
        raise Refusal(404, f'no handler for route "{path}". route entry not found.')

    def _public(self, path: str, namespace: str) -> str:
        mount, rest = self._mount(path, namespace)
        if mount.default is None:
            return ""
        if rest == "ca/pem":
            return mount.default.pem
        chain, pool = [mount.default], list(mount.issuers)
        for known in pool:
            if known not in chain and chain[-1].certificate.issuer == known.certificate.subject:
                chain.append(known)
        return "\n".join(issuer.pem for issuer in chain)

    # -- the engine ----------------------------------------------------------------------------------------------------

    def _engine(self, method: str, mount: Mount, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        parts = path.split("?")[0].split("/")
        match method, parts:
            case "POST", ["root", "generate" | "rotate", "internal"]:
                return self._generate_root(mount, body, first=parts[1] == "generate")
            case "POST", ["intermediate", "generate", "internal"]:
                return self._request(mount, body)
            case "POST", ["intermediate", "set-signed"]:
                return self._set_signed(mount, body)
            case "POST", ["config", "issuers"] if self.several_issuers:
                mount.default = self._issuer(mount, body["default"])
                return {"data": {"default": mount.default.id}}
            case "GET", ["issuers"] if self.several_issuers:
                return {"data": {"keys": [issuer.id for issuer in mount.issuers]}}
            case "GET", ["issuer", name] if self.several_issuers:
                return {"data": {"certificate": self._issuer(mount, name).pem}}
            case "POST", ["root", "sign-intermediate"]:
                return self._sign_intermediate(mount, body)
            case "POST", ["root", "sign-self-issued"]:
                return self._cross_sign(self._own(mount), body)
            case "POST", ["issuer", name, "sign-self-issued"] if self.several_issuers:
                return self._cross_sign(self._issuer(mount, name), body)
            case "POST", ["roles", name]:
                mount.roles[name] = body
                return {"data": body}
            case "GET", ["roles", name] if name in mount.roles:
                return {"data": mount.roles[name]}
            case "POST", ["sign", name]:
                return self._sign(mount, name, body)
            case "POST", ["tidy"]:
                mount.tidied += 1
                return {}
        raise Refusal(404, "unsupported path")

    def _issuer(self, mount: Mount, name: str) -> Issuer:
        for issuer in mount.issuers:
            if issuer.id == name:
                return issuer
        raise Refusal(400, f"unable to find PKI issuer for reference: {name}")

    def _own(self, mount: Mount) -> Issuer:
        if mount.default is None:
            raise Refusal(500, "could not fetch the CA certificate (was one set?): no default issuer")
        return mount.default

    def _generate_root(self, mount: Mount, body: dict[str, Any], *, first: bool) -> dict[str, Any]:
        key = _new_key(body)
        name = _name(body["common_name"])
        life = min(_seconds(body.get("ttl")) or DAY, _seconds(mount.config.get("max_lease_ttl")) or 32 * DAY)
        certificate = _authority(self._builder(name, name, key.public_key(), life), body.get("uri_sans")).sign(
            key, hashes.SHA256()
        )
        issuer = Issuer(certificate, key)
        if not self.several_issuers:
            mount.issuers.clear()
        mount.issuers.append(issuer)
        if (first and mount.default is None) or not self.several_issuers:
            mount.default = issuer
        return {"data": {"certificate": issuer.pem, "issuer_id": issuer.id}}

    def _request(self, mount: Mount, body: dict[str, Any]) -> dict[str, Any]:
        key = _new_key(body)
        builder = x509.CertificateSigningRequestBuilder().subject_name(_name(body["common_name"]))
        builder = builder.add_extension(_uri(body["uri_sans"]), critical=False)
        mount.asked_keys.append(key)
        return {"data": {"csr": builder.sign(key, hashes.SHA256()).public_bytes(PEM).decode().strip()}}

    def _set_signed(self, mount: Mount, body: dict[str, Any]) -> dict[str, Any] | None:
        mapping, own = {}, None
        for certificate in x509.load_pem_x509_certificates(body["certificate"].encode()):
            key = next((k for k in mount.asked_keys if k.public_key() == certificate.public_key()), None)
            issuer = Issuer(certificate, key)
            mount.issuers.append(issuer)
            mapping[issuer.id] = "a-key" if key is not None else ""
            own = own or (issuer if key is not None else None)
        if own is None:
            raise Refusal(400, "verification of parsed bundle failed: no key was asked for")
        if mount.default is None or not self.several_issuers:
            mount.default = own
        return {"data": {"imported_issuers": list(mapping), "mapping": mapping}} if self.several_issuers else None

    def _sign_intermediate(self, mount: Mount, body: dict[str, Any]) -> dict[str, Any]:
        issuer, request = self._own(mount), x509.load_pem_x509_csr(body["csr"].encode())
        uri = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        builder = self._builder(
            request.subject, issuer.certificate.subject, request.public_key(), _seconds(body["ttl"])
        )
        builder = _authority(builder, uri[0].value, path_length=body.get("max_path_length"))
        return self._signed(builder, issuer)

    def _cross_sign(self, issuer: Issuer, body: dict[str, Any]) -> dict[str, Any]:
        other = x509.load_pem_x509_certificate(body["certificate"].encode())
        if other.subject != other.issuer:
            raise Refusal(400, "given certificate is not self-issued")
        builder = (
            x509.CertificateBuilder()
            .subject_name(other.subject)
            .issuer_name(issuer.certificate.subject)
            .public_key(other.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(other.not_valid_before_utc)
            .not_valid_after(other.not_valid_after_utc)
        )
        for extension in other.extensions:
            if not isinstance(extension.value, x509.AuthorityKeyIdentifier):
                builder = builder.add_extension(extension.value, extension.critical)
        return self._signed(builder, issuer)

    def _sign(self, mount: Mount, role: str, body: dict[str, Any]) -> dict[str, Any]:
        if role not in mount.roles:
            raise Refusal(400, f"unknown role: {role}")
        issuer, request = self._own(mount), x509.load_pem_x509_csr(body["csr"].encode())
        life = min(_seconds(body["ttl"]), _seconds(mount.roles[role]["max_ttl"]))
        if self.now() + life > issuer.certificate.not_valid_after_utc.timestamp():
            raise Refusal(
                400, "cannot satisfy request, as TTL would result in notAfter beyond that of the CA certificate"
            )
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        builder = self._builder(request.subject, issuer.certificate.subject, request.public_key(), life)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = self.alter_leaf(builder.add_extension(names, critical=False))
        return self._signed(builder, issuer)

    def _signed(self, builder: x509.CertificateBuilder, issuer: Issuer) -> dict[str, Any]:
        certificate = builder.sign(issuer.key, hashes.SHA256())
        return {"data": {"certificate": Issuer(certificate).pem, "issuing_ca": issuer.pem}}

    def _builder(self, subject: x509.Name, issuer: x509.Name, key: Any, life: float) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_date(self.now() - 30))
            .not_valid_after(_date(self.now() + life))
        )


def _authority(builder: x509.CertificateBuilder, uri: str | None, path_length: int | None = None) -> Any:
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    return builder.add_extension(_uri(uri), critical=False) if uri else builder


def _uri(uri: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _date(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)


def _seconds(text: Any) -> float:
    return float(str(text or "0s").removesuffix("s"))


def _new_key(body: dict[str, Any]) -> Any:
    kind, bits = body.get("key_type", "rsa"), int(body.get("key_bits") or 0)
    if kind == "rsa":
        return rsa.generate_private_key(65537, bits or 2048)
    if kind != "ec":
        raise Refusal(400, f"unknown key type: {kind}")
    curves: dict[int, type[ec.EllipticCurve]] = {
        224: ec.SECP224R1,
        256: ec.SECP256R1,
        384: ec.SECP384R1,
        521: ec.SECP521R1,
    }
    return ec.generate_private_key(curves[bits or 256]())
