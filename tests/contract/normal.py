"""Makes two servers' answers comparable: labels what differs each time, keeps everything else.

What is labelled: certificates, keys and their fingerprints; ids (`<uuid:1>`; the same id gets the same label in one
scenario), Raft indexes (`<index:1>`, likewise, so that "unchanged" and "changed" stay visible), times, gossip clocks,
content hashes, the servers' own ports.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.contract.client import Answer
from tests.contract.servers import Server

# Of the answer's headers, these are part of the contract. Date, Content-Length, Connection and Transfer-Encoding
# belong to the HTTP library.
HEADERS = ("allow", "content-type", "content-encoding", "vary", "location", "age", "x-cache")
HEADER_PREFIXES = ("x-consul-", "access-control-", "x-contract")

_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_TIME = re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?( [+-]\d{4} \w+)?( m=\S+)?")
_BASE64_HASH = re.compile(r"^[0-9A-Za-z+/]{43}=$")
_HEX_HASH = re.compile(r"^[0-9a-f]{1,16}$")
# The names of the reference's Go types are no part of the contract.
_GO_TYPE = re.compile(r"(json: cannot unmarshal \w+( \S+)? into Go) [^\n]*")
# Where the reference begins to tell of a circle is by chance.
_CIRCLE = re.compile(r"(detected circular resolver redirect: )\[[^\]]*\]")
# Certificates and keys, and what tells them apart.
_PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)
_FINGERPRINT = re.compile(r"\b([0-9a-f]{2}:){15,}[0-9a-f]{2}\b")
_SERIAL = re.compile(r"^[0-9a-f]{2}(:[0-9a-f]{2})*$")
_INDEX_IN_TEXT = re.compile(r"(current modify index) \d+")
_INDEX_KEYS = ("CreateIndex", "ModifyIndex", "Index", "SnapshotIndex")
_CLOCK_KEYS = ("LTime",)
_QUERY_HEADERS = {"X-Consul-Index": "<index>", "X-Consul-Knownleader": "true", "X-Consul-Lastcontact": "<number>"}
# JSON this short stays on one line.
_LINE = 160


class Normaliser:
    """The labels of one scenario on one server."""

    def __init__(self, server: Server, remembered: dict[str, str], label_indexes: bool = True) -> None:
        self._remembered = remembered
        self._label_indexes = label_indexes
        self._fixed = {server.node_id: "{node_id}"}
        self._ports = {f"127.0.0.1:{port}": f"127.0.0.1:{{{name}_port}}" for name, port in server.ports.items()}
        self._port_numbers = {port: f"{{{name}_port}}" for name, port in server.ports.items()}
        self._uuids: dict[str, str] = {}
        self._fingerprints: dict[str, str] = {}
        self._indexes: dict[int, str] = {}

    def answer(self, answer: Answer) -> list[str]:
        """An HTTP answer as lines: status and media type, headers in alphabetical order, body.

        What nearly every answer says is not repeated: only the absence of `Vary: Accept-Encoding` is shown, and the
        three headers of a read by a known leader are one line, `(query)`.
        """
        headers = {
            _title(name): self._header(name, answer.headers[name])
            for name in sorted(answer.headers)
            if name in HEADERS or name.startswith(HEADER_PREFIXES)
        }
        lines = [f"{answer.status} {headers.pop('Content-Type', '')}".rstrip()]
        if headers.get("Vary") == "Accept-Encoding":
            del headers["Vary"]
        else:
            headers.setdefault("Vary", "(absent)")
        if all(headers.get(name) == value for name, value in _QUERY_HEADERS.items()):
            for name in _QUERY_HEADERS:
                del headers[name]
            lines.append("(query)")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return lines + self.body(answer)

    def body(self, answer: Answer) -> list[str]:
        """The body alone: JSON with sorted keys, or text as it came."""
        if not answer.body:
            return []
        if answer.headers.get("content-type", "").startswith("application/json"):
            try:
                return dump(self.tree(_tags_sorted(json.loads(answer.body))))
            except ValueError:
                return ["(not JSON)", *self.text(answer.text).split("\n")]
        return [line.rstrip() for line in self.text(answer.text).rstrip("\n").split("\n")]

    def record(self, line: str) -> str:
        """A line of a DNS answer, where a port stands as a word among others."""
        words = [str(self._port_numbers.get(int(word), word)) if word.isdigit() else word for word in line.split(" ")]
        return self.text(" ".join(words))

    def text(self, text: str) -> str:
        """A string with ids, times and ports labelled."""
        for name, value in self._remembered.items():
            # A remembered index is a number like many others.
            if value and not value.isdigit():
                text = text.replace(value, f"{{{name}}}")
        for value, label in self._fixed.items():
            text = text.replace(value, label)
        for address, label in self._ports.items():
            text = text.replace(address, label)
        text = _PEM.sub(lambda found: f"<{found[1].lower()}>", text)
        text = _FINGERPRINT.sub(lambda found: self._fingerprint(found.group()), text)
        text = _UUID.sub(lambda found: self._uuid(found.group()), text)
        text = _GO_TYPE.sub(r"\1 <type>", text)
        text = _CIRCLE.sub(r"\1[<circle>]", text)
        text = _INDEX_IN_TEXT.sub(r"\1 <index>", text)
        return _TIME.sub("<time>", text)

    def tree(self, value: Any, key: str = "") -> Any:
        """JSON with its strings and its changing numbers labelled."""
        if isinstance(value, dict):
            return {self.text(name): self.tree(value[name], name) for name in sorted(value)}
        if isinstance(value, list):
            return [self.tree(item, key) for item in value]
        if isinstance(value, str):
            return self._string(value, key)
        if isinstance(value, float) and value.is_integer():
            # 0.0 and 0 are one number in JSON.
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return self._number(value, key)
        return value

    def _string(self, value: str, key: str) -> str:
        if key == "ContentHash" and _HEX_HASH.match(value):
            return "<hash>"
        if key == "Hash" and _BASE64_HASH.match(value):
            return "<hash>"
        if key == "SerialNumber" and _SERIAL.match(value):
            return "<serial>"
        if value.isdigit() and int(value) in self._port_numbers:
            return self._port_numbers[int(value)]
        return self.text(value)

    def _number(self, value: int, key: str) -> Any:
        if key in _INDEX_KEYS and value > 0:
            if not self._label_indexes:
                return "<index>"
            return self._indexes.setdefault(value, f"<index:{len(self._indexes) + 1}>")
        if key in _CLOCK_KEYS:
            return "<clock>"
        if key == "SerialNumber":
            return "<serial>"
        return self._port_numbers.get(value, value)

    def _header(self, name: str, value: str) -> str:
        if name == "x-consul-index":
            return "<index>" if value.isdigit() and int(value) > 0 else f"(must be above zero) {value}"
        if name in ("age", "x-consul-lastcontact"):
            return "<number>" if value.isdigit() else f"(must be a number) {value}"
        if name == "x-consul-contenthash":
            return "<hash>"
        return self.text(value)

    def _fingerprint(self, value: str) -> str:
        return self._fingerprints.setdefault(value, f"<fingerprint:{len(self._fingerprints) + 1}>")

    def _uuid(self, value: str) -> str:
        return self._uuids.setdefault(value, f"<uuid:{len(self._uuids) + 1}>")


def dump(value: Any, indent: str = "", lead: str = "") -> list[str]:
    """JSON as lines, in the shortest layout that a person can still read; keys sorted."""
    flat = json.dumps(value, sort_keys=True, ensure_ascii=False)
    if len(indent) + len(lead) + len(flat) <= _LINE or not isinstance(value, dict | list) or not value:
        return [f"{indent}{lead}{flat}"]
    inner = indent + "  "
    lines: list[str] = []
    if isinstance(value, dict):
        parts = [dump(value[key], inner, f"{json.dumps(key, ensure_ascii=False)}: ") for key in sorted(value)]
        opening, closing = "{", "}"
    else:
        parts = [dump(item, inner) for item in value]
        opening, closing = "[", "]"
    for number, part in enumerate(parts):
        lines += part
        if number < len(parts) - 1:
            lines[-1] += ","
    return [f"{indent}{lead}{opening}", *lines, f"{indent}{closing}"]


def _tags_sorted(value: Any) -> Any:
    """The list of services is an object of tag lists, whose order is by chance in the reference."""
    if isinstance(value, dict) and value and all(isinstance(tags, list) for tags in value.values()):
        return {name: sorted(tags, key=str) for name, tags in value.items()}
    return value


def _title(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))
