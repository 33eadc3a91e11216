"""Packets: what is read from a request, what is refused, and that whatever arrives is answered or dropped as is due."""

import struct
from random import Random

import pytest
from dnslib import CLASS, EDNS0, QTYPE, RCODE, RR, SRV, A, DNSHeader, DNSQuestion, DNSRecord, EDNSOption

from lictor.dns import message
from lictor.dns.message import FORMERR, NOTIMP, Packer, Record, Request, parse, plain_size
from tests.dns.scenario import Zone

ROUNDS = 4000


def packet(name: str = "web.service.consul", kind: str = "A", **header: int) -> bytes:
    return bytes(DNSRecord(DNSHeader(id=7, rd=1, **header), q=DNSQuestion(name, getattr(QTYPE, kind))).pack())


def with_edns(size: int = 1232, *options: EDNSOption) -> bytes:
    record = DNSRecord.parse(packet())
    record.add_ar(EDNS0(udp_len=size, opts=list(options)))
    return bytes(record.pack())


def raw(question: bytes, questions: int = 1, answers: int = 0, authorities: int = 0, additionals: int = 0) -> bytes:
    return struct.pack("!6H", 7, 0x0100, questions, answers, authorities, additionals) + question


QUESTION = b"\x03web\x07service\x06consul\x00\x00\x01\x00\x01"


def test_a_request_is_read() -> None:
    request = parse(packet("Web.Service.consul", "SRV"))
    assert isinstance(request, Request)
    assert request.name == ("web", "service", "consul")
    assert request.labels == (b"Web", b"Service", b"consul")
    assert (request.qtype, request.qclass, request.edns) == (33, 1, None)


def test_requests_that_ask_the_same_have_one_key() -> None:
    first, second, other = (
        parse(raw(QUESTION[:-3] + kind)) for kind in (b"\x41\x00\x01", b"\x41\x00\x01", b"\x61\x00\x01")
    )
    assert isinstance(first, Request) and isinstance(second, Request) and isinstance(other, Request)
    assert first.key == second.key
    assert first.key != other.key
    spelled = parse(raw(QUESTION.replace(b"web", b"WEB")))
    plain = parse(raw(QUESTION))
    assert isinstance(spelled, Request) and isinstance(plain, Request)
    assert spelled.key == plain.key


def test_edns_size_and_client_subnet_are_read() -> None:
    request = parse(with_edns(1400, EDNSOption(10, b"cookie--"), EDNSOption(8, b"\x00\x01\x18\x00\x01\x02\x03")))
    assert isinstance(request, Request)
    assert request.edns == message.Edns(1400, b"\x00\x01\x18\x00\x01\x02\x03")


@pytest.mark.parametrize(
    ("data", "due"),
    [
        (b"", None),
        (b"\x00" * 11, None),
        (packet(qr=1), None),
        (packet(opcode=2), NOTIMP),
        (packet(opcode=5), NOTIMP),
        (raw(b"", questions=0), FORMERR),
        (raw(QUESTION * 2, questions=2), FORMERR),
        (raw(QUESTION, answers=2), FORMERR),
        (raw(QUESTION, additionals=3), FORMERR),
        (raw(b"\xc0\x0c\x00\x01\x00\x01"), FORMERR),
        (raw(b"\x03web\xc0\x0c\x00\x01\x00\x01"), FORMERR),
        (raw(b"\x40" + b"a" * 64 + b"\x00\x00\x01\x00\x01"), FORMERR),
        (raw(b"\x3f" + b"a" * 63), FORMERR),
        (raw((b"\x3f" + b"a" * 63) * 4 + b"\x00\x00\x01\x00\x01"), FORMERR),
        (raw(QUESTION[:-1]), FORMERR),
        (raw(QUESTION, additionals=1), FORMERR),
        (raw(QUESTION + b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x09", additionals=1), FORMERR),
        (raw(QUESTION + b"\x01x\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00", additionals=1), FORMERR),
        (with_edns(1232, EDNSOption(8, b"\x00\x01")), FORMERR),
        (with_edns(1232, EDNSOption(8, b"\x00\x01\x21\x00" + b"\x01" * 5)), FORMERR),
        (with_edns(1232, EDNSOption(8, b"\x00\x09\x18\x00\x01\x02\x03")), FORMERR),
    ],
)
def test_what_is_no_request_is_refused_or_dropped(data: bytes, due: int | None) -> None:
    assert parse(data) == due
    if due is not None:
        answer = DNSRecord.parse(message.refusal(data, due))
        assert answer.header.id == data[0] << 8 | data[1]
        assert (answer.header.qr, answer.header.rcode) == (1, due)


@pytest.mark.parametrize("compress", [True, False])
def test_packed_records_are_read_by_another_library(compress: bool) -> None:
    question = (b"web", b"service", b"consul")
    target = (b"n1", b"node", b"dc1", b"consul")
    records = [
        Record(None, message.A, 7, b"\x0a\x00\x00\x01"),
        Record(None, message.SRV, 7, b"\x00\x01\x00\x02\x1f\x90", target),
        Record(target, message.A, 7, b"\x0a\x00\x00\x02"),
        Record(target, message.TXT, 7, message.text_data("a=" + "x" * 300)),
        Record((b"consul",), message.SOA, 3, b"", (b"ns", b"consul"), (b"hostmaster", b"consul"), bytes(20)),
        Record(target[1:], message.NS, 3, b"", target),
    ]
    wire = b"".join([bytes((len(label),)) + label for label in question]) + b"\x00\x00\x01\x00\x01"
    packer = Packer(question, compress)
    body = packer.pack(records[:3]) + packer.pack(records[3:])
    parsed = DNSRecord.parse(b"\x00\x07" + message.header(0x8400, len(records), 0, 0) + wire + body)
    assert parsed.rr[:3] == [
        RR("web.service.consul", QTYPE.A, CLASS.IN, 7, A("10.0.0.1")),
        RR("web.service.consul", QTYPE.SRV, CLASS.IN, 7, SRV(1, 2, 8080, "n1.node.dc1.consul")),
        RR("n1.node.dc1.consul", QTYPE.A, CLASS.IN, 7, A("10.0.0.2")),
    ]
    assert b"".join(parsed.rr[3].rdata.data) == b"a=" + b"x" * 300
    assert str(parsed.rr[4].rname) == "consul."
    assert [str(label) for label in (parsed.rr[4].rdata.mname, parsed.rr[4].rdata.rname)] == [
        "ns.consul.",
        "hostmaster.consul.",
    ]
    assert str(parsed.rr[5].rdata.label) == "n1.node.dc1.consul."
    plain = sum(plain_size(record, question) for record in records)
    assert len(body) < plain if compress else len(body) == plain


def zone() -> Zone:
    zone = Zone()
    for i in range(12):
        zone.do(f"node n{i} 10.0.0.{i + 1} meta.k=v")
        zone.do(f"service n{i} web port={80 + i}")
    zone.do('query {"Name": "q-", "Template": {"Type": "name_prefix_match"}, "Service": {"Service": "web"}}')
    return zone


def check(zone: Zone, data: bytes, tcp: bool) -> None:
    """A packet is dropped only where that is due; any answer is a message with the packet's id and question."""
    reply = zone.responder.respond(data, "127.0.0.1", tcp)
    if reply is None:
        assert len(data) < 12 or data[2] & 0x80
        return
    assert isinstance(reply, bytes)
    assert reply[:2] == data[:2]
    assert reply[2] & 0x80
    request = parse(data)
    if isinstance(request, Request) and not request.question.isascii():
        return  # the library that checks us here reads no such names
    parsed = DNSRecord.parse(reply)
    if parsed.header.q:
        assert isinstance(request, Request)
        assert reply[12 : 12 + len(request.question)] == request.question
        if not tcp:
            size = max(512, request.edns.size) if request.edns is not None else 512
            assert len(reply) <= size or len(parsed.rr) == 1
    else:
        assert RCODE[parsed.header.rcode] in ("FORMERR", "NOTIMP")


def test_random_bytes_are_answered_or_dropped() -> None:
    rng = Random(1)
    subject = zone()
    for _ in range(ROUNDS):
        data = rng.randbytes(rng.randrange(80))
        check(subject, data, rng.random() < 0.5)


def test_damaged_requests_are_answered_or_dropped() -> None:
    rng = Random(2)
    subject = zone()
    names = ["web.service.consul", "_web._tcp.service.consul", "n1.node.consul", "q-x.query.consul", "consul", "x.y"]
    names += ["1.0.0.10.in-addr.arpa", "0a000001.addr.consul", "web.connect.dc1.consul", "web.virtual.consul", "."]
    kinds = ["A", "AAAA", "SRV", "ANY", "TXT", "SOA", "NS", "CNAME", "PTR", "MX"]
    for _ in range(ROUNDS):
        record = DNSRecord(
            DNSHeader(rd=rng.randrange(2)), q=DNSQuestion(rng.choice(names), getattr(QTYPE, rng.choice(kinds)))
        )
        if rng.random() < 0.5:
            subnet = EDNSOption(8, b"\x00\x01\x18\x00\x01\x02\x03")
            record.add_ar(EDNS0(udp_len=rng.randrange(5000), opts=[subnet] if rng.random() < 0.5 else []))
        data = bytearray(record.pack())
        for _ in range(rng.randrange(4)):
            place = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[place] = rng.randrange(256)
                case 1:
                    data[place] ^= 1 << rng.randrange(8)
                case 2:
                    del data[place:]
                    data += bytes(max(0, 12 - len(data)))
                case _:
                    data[place:place] = rng.randbytes(rng.randrange(6))
        check(subject, bytes(data), rng.random() < 0.5)
