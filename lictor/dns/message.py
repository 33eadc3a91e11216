"""DNS messages as bytes: requests parsed, records packed (RFC 1035 section 4, RFC 6891, RFC 7871).

Every packet that reaches the door is parsed here, so the parser reads nothing twice, follows no pointer in a question,
and is bounded by the packet's length. It is written by hand because it stands on the path of every answer that is not
in the cache: a general library's objects cost several times the answer. Messages of other servers, which are rare, are
read with dnslib, in `recursors`.
"""

import struct
from collections.abc import Sequence

import msgspec

A, NS, CNAME, SOA, PTR, TXT, AAAA, SRV, OPT, AXFR, ANY = 1, 2, 5, 6, 12, 16, 28, 33, 41, 252, 255
IN, ANY_CLASS = 1, 255

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)

QR, AA, TC, RD, RA, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0010
OPCODES = 0x7800
QUERY, NOTIFY = 0, 4

MAX_NAME = 255
MAX_LABEL = 63
HEADER = 12
CLIENT_SUBNET = 8

Labels = tuple[bytes, ...]

_COUNTS = struct.Struct("!5H")
_FIXED = struct.Struct("!HHIH")


class Malformed(ValueError):
    """The packet is no well-formed request."""


class Edns(msgspec.Struct, frozen=True, gc=False):
    """What a request's OPT record says: the payload size it takes in bytes, and its client subnet option's data."""

    size: int
    subnet: bytes | None = None


class Request(msgspec.Struct, frozen=True, gc=False):
    """A request for one name. `question` is its question section as it came, `name` its labels in lower case."""

    flags: int
    question: bytes
    name: tuple[str, ...]
    labels: Labels
    qtype: int
    qclass: int
    edns: Edns | None

    @property
    def key(self) -> bytes:
        """The question section with its name in lower case: the same for all requests that ask the same."""
        return fold(self.question)

    @property
    def reply_flags(self) -> int:
        """The flags that every answer repeats: the opcode and, for a plain query, RD and CD (RFC 1035, RFC 4035)."""
        flags = QR | (self.flags & OPCODES)
        return flags | (self.flags & (RD | CD)) if not self.flags & OPCODES else flags


def fold(question: bytes) -> bytes:
    """A question section with its name in lower case; lengths of labels are below `A`, type and class are left out."""
    return question[:-4].lower() + question[-4:]


def parse(data: bytes) -> Request | int | None:
    """A packet as a request; the rcode to refuse it with; or None where it deserves no answer at all (too short to have
    an id, or itself an answer).
    """
    if len(data) < HEADER:
        return None
    flags, questions, answers, authorities, additionals = _COUNTS.unpack_from(data, 2)
    if flags & QR:
        return None
    if (flags & OPCODES) >> 11 not in (QUERY, NOTIFY):
        return NOTIMP
    if questions != 1 or answers > 1 or authorities > 1 or additionals > 2:
        return FORMERR
    try:
        return _parse(data, flags, answers + authorities, additionals)
    except Malformed:
        return FORMERR


def _parse(data: bytes, flags: int, passed_over: int, additionals: int) -> Request:
    labels = []
    at = HEADER
    end = len(data)
    while True:
        if at >= end:
            raise Malformed("the question's name does not end")
        length = data[at]
        at += 1
        if not length:
            break
        if length > MAX_LABEL or at - HEADER + length >= MAX_NAME:
            raise Malformed("the question's name is too long or has a pointer")
        labels.append(data[at : at + length])
        at += length
    if at + 4 > end:
        raise Malformed("the question has no type and class")
    qtype = data[at] << 8 | data[at + 1]
    qclass = data[at + 2] << 8 | data[at + 3]
    at += 4
    question = data[HEADER:at]
    edns = None
    for section, count in (("", passed_over), ("additional", additionals)):
        for _ in range(count):
            root, at = _skip_name(data, at)
            if at + 10 > end:
                raise Malformed("a record is cut short")
            kind, klass, _, size = _FIXED.unpack_from(data, at)
            at += 10
            if at + size > end:
                raise Malformed("a record is cut short")
            if kind == OPT and section and edns is None:
                if not root:
                    raise Malformed("an OPT record has a name")
                edns = Edns(klass, _subnet(data[at : at + size]))
            at += size
    name = tuple([label.lower().decode("utf-8", "surrogateescape") for label in labels])
    return Request(flags, question, name, tuple(labels), qtype, qclass, edns)


def _skip_name(data: bytes, at: int) -> tuple[bool, int]:
    """Whether the name at `at` is the root, and where it ends. Pointers are not followed."""
    start = at
    while at < len(data):
        length = data[at]
        if not length:
            return at == start, at + 1
        if length >= 0xC0:
            return False, at + 2
        if length > MAX_LABEL or at - start > MAX_NAME:
            break
        at += length + 1
    raise Malformed("a record's name does not end")


def _subnet(options: bytes) -> bytes | None:
    """The data of the client subnet option (RFC 7871), if there is one."""
    found = None
    at = 0
    while at < len(options):
        if at + 4 > len(options):
            raise Malformed("an EDNS option is cut short")
        code, size = struct.unpack_from("!HH", options, at)
        at += 4
        if at + size > len(options):
            raise Malformed("an EDNS option is cut short")
        if code == CLIENT_SUBNET and found is None:
            found = options[at : at + size]
            check_subnet(found)
        at += size
    return found


def check_subnet(data: bytes) -> None:
    """Raise Malformed unless this is the data of a client subnet option of a family that is known."""
    if len(data) < 4:
        raise Malformed("a client subnet is cut short")
    family = data[0] << 8 | data[1]
    bits = {0: 0, 1: 32, 2: 128}.get(family)
    if bits is None or data[2] > bits or data[3] > bits or len(data) - 4 > bits // 8:
        raise Malformed("a client subnet is of no known family or too long")


def refusal(data: bytes, rcode: int) -> bytes:
    """The answer to a packet that could not be parsed: its header alone, with its flags as far as they are known."""
    flags = data[2] << 8 | data[3]
    opcode = flags & OPCODES if rcode == NOTIMP else 0
    flags = QR | opcode | (flags & (TC | RD | RA | 0x0020 | CD)) | rcode
    return data[:2] + _COUNTS.pack(flags, 0, 0, 0, 0)


# -- records ----------------------------------------------------------------------------------------------------------


class Record(msgspec.Struct, frozen=True, gc=False):
    """A resource record of class IN. `name` is None for the name that was asked for. Its data is `data`, then, where
    the type has them, the `target` name and, for SOA, the `tail`.
    """

    name: Labels | None
    type: int
    ttl: int
    data: bytes = b""
    target: Labels | None = None
    second: Labels | None = None
    tail: bytes = b""


def labels_of(name: str) -> Labels | None:
    """A name's labels, or None where it cannot be one: a label that is empty or too long, or too long as a whole."""
    labels = tuple([label.encode("utf-8", "surrogateescape") for label in name.strip(".").split(".")])
    if any(not 0 < len(label) <= MAX_LABEL for label in labels) or name_size(labels) > MAX_NAME:
        return None
    return labels


def name_size(labels: Labels) -> int:
    """Bytes of a name that is not compressed."""
    return sum(map(len, labels)) + len(labels) + 1


def text_data(text: str) -> bytes:
    """The data of a TXT record: strings of at most 255 bytes."""
    raw = text.encode("utf-8", "surrogateescape")
    pieces = [raw[at : at + 255] for at in range(0, len(raw), 255)] or [b""]
    return b"".join([bytes((len(piece),)) + piece for piece in pieces])


def plain_size(record: Record, question: Labels) -> int:
    """Bytes of a record that is not compressed."""
    size = name_size(question if record.name is None else record.name) + 10 + len(record.data) + len(record.tail)
    if record.target is not None:
        size += name_size(record.target)
    if record.second is not None:
        size += name_size(record.second)
    return size


class Packer:
    """Writes the sections of one answer after its question, with names compressed (RFC 1035 section 4.1.4) or not."""

    __slots__ = ("_at", "_compress", "_known", "_question")

    def __init__(self, question: Labels, compress: bool) -> None:
        self._question = question
        self._compress = compress
        self._known: dict[Labels, int] = {}
        self._at = HEADER
        if compress:
            self._learn(question, HEADER)
        self._at += name_size(question) + 4

    def pack(self, records: Sequence[Record]) -> bytes:
        """The bytes of the next records."""
        out = bytearray()
        start = self._at
        known = self._known
        for record in records:
            name = self._question if record.name is None else record.name
            offset = known.get(name)
            if offset is not None:
                out += (0xC000 | offset).to_bytes(2, "big")
            else:
                out += self._name(name, start + len(out), self._compress)
            data = record.data
            at = start + len(out) + 10
            if record.target is not None:
                # RFC 2782: the target of an SRV record is not compressed.
                data += self._name(record.target, at + len(data), self._compress and record.type != SRV)
                if record.second is not None:
                    data += self._name(record.second, at + len(data), self._compress)
                data += record.tail
            out += _FIXED.pack(record.type, IN, record.ttl, len(data))
            out += data
        self._at = start + len(out)
        return bytes(out)

    def _name(self, labels: Labels, at: int, compress: bool) -> bytes:
        out = bytearray()
        known = self._known
        for i in range(len(labels)):
            if compress:
                offset = known.get(labels[i:])
                if offset is not None:
                    self._learn(labels[:i], at, labels)
                    return bytes(out + (0xC000 | offset).to_bytes(2, "big"))
            out.append(len(labels[i]))
            out += labels[i]
        if self._compress:
            self._learn(labels, at, labels)
        out.append(0)
        return bytes(out)

    def _learn(self, written: Labels, at: int, whole: Labels | None = None) -> None:
        """Remember where each suffix begins of which the first labels were written out at `at`."""
        whole = written if whole is None else whole
        known = self._known
        for i, label in enumerate(written):
            if at >= 0x4000:
                return
            known.setdefault(whole[i:], at)
            at += len(label) + 1


def header(flags: int, answers: int, authorities: int, additionals: int) -> bytes:
    """The ten bytes of the header after the id, for an answer with its question."""
    return _COUNTS.pack(flags, 1, answers, authorities, additionals)


def opt_record(edns: Edns, subnet_scope: int) -> bytes:
    """The OPT record of an answer: the payload size of the request repeated and, if it had one, its client subnet with
    the scope that the answer is good for (bits).
    """
    options = b""
    if edns.subnet is not None:
        subnet = edns.subnet[:3] + bytes((subnet_scope,)) + edns.subnet[4:]
        options = struct.pack("!HH", CLIENT_SUBNET, len(subnet)) + subnet
    return b"\x00" + _FIXED.pack(OPT, edns.size, 0, len(options)) + options
