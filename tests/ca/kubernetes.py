"""Kubernetes as Vault's login asks it, over HTTPS: whether a service account's token is good (TokenReview, as the API
of `authentication.k8s.io/v1` documents it). And tokens such as service accounts have.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.rpc.certificates import authority

ACCOUNT = {"name": "lictor", "uid": "d77f89bc-9055-11e7-a068-0800276d99bf"}
NAMESPACE = "mesh"
AUDIENCE = "vault"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"


def signed_token(claims: dict[str, Any]) -> tuple[str, str]:
    """A JWT (RFC 7519) signed with ES256, and the key that it is checked with."""
    key = ec.generate_private_key(ec.SECP256R1())
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()) for part in ({"alg": "ES256", "typ": "JWT"}, claims)]
    signing = b".".join(part.rstrip(b"=") for part in parts)
    r, s = decode_dss_signature(key.sign(signing, ec.ECDSA(hashes.SHA256())))
    signature = base64.urlsafe_b64encode(r.to_bytes(32, "big") + s.to_bytes(32, "big")).rstrip(b"=")
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    public = key.public_key().public_bytes(serialization.Encoding.PEM, kind)
    return f"{signing.decode()}.{signature.decode()}", public.decode()


def account_token() -> str:
    """A token as a pod of the service account finds it in its file."""
    now = int(time.time())
    claims = {
        "iss": "https://kubernetes.default.svc.cluster.local",
        "sub": f"system:serviceaccount:{NAMESPACE}:{ACCOUNT['name']}",
        "aud": [AUDIENCE],
        "iat": now,
        "nbf": now - 60,
        "exp": now + 3600,
        "kubernetes.io": {"namespace": NAMESPACE, "serviceaccount": ACCOUNT},
    }
    return signed_token(claims)[0]


class Kubernetes:
    """Kubernetes' API, with `good` as the tokens that it knows: the reviewer's own among them. A context manager."""

    def __init__(self, folder: Path) -> None:
        made = authority(folder)
        served = made.settings("-server", "-additional-ipaddress=127.0.0.1")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(served.cert_file, served.key_file)
        self.reviewer = account_token()
        self.good: set[str] = set()
        self.reviewed: list[tuple[str, bool]] = []
        self.authority = made.certificate.decode()
        kubernetes = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, answer = kubernetes._review(self.path, self.headers.get("Authorization", ""), body)
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.address = f"https://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Kubernetes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _review(self, path: str, caller: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path != REVIEWS:
            return 404, {"kind": "Status", "code": 404, "message": f"nothing at {path}"}
        if caller != f"Bearer {self.reviewer}":
            return 401, {"kind": "Status", "code": 401, "message": "Unauthorized"}
        token = body["spec"]["token"]
        good = token in self.good
        self.reviewed.append((token, good))
        user = {
            "username": f"system:serviceaccount:{NAMESPACE}:{ACCOUNT['name']}",
            "uid": ACCOUNT["uid"],
            "groups": ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}"],
        }
        audiences = [name for name in body["spec"].get("audiences", [AUDIENCE]) if name == AUDIENCE]
        status: dict[str, Any] = {"authenticated": True, "user": user, "audiences": audiences}
        if not good:
            status = {"authenticated": False, "error": "no such token"}
        return 201, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}
