"""The caches of the DNS door: never older than the store, never full of what came once."""

from random import Random

import msgspec
from dnslib import DNSRecord, EDNSOption

from lictor.agent.elsewhere import FAILED, UNKNOWN, Found, Lookup
from lictor.dns.responder import Forward, Responder, Unconfirmed, Wanted
from lictor.dns.settings import DnsSettings
from lictor.model.command import CoordinateUpdate, Deregister
from lictor.model.coordinate_entry import Coord, CoordinateEntry
from lictor.model.node import Node
from lictor.model.service import NodeService
from lictor.store.commands import apply
from lictor.store.reads.health import CheckServiceNode
from tests.contract.dig import DnsAnswer, lines, question
from tests.dns.scenario import NOW, Zone


def packet(name: str, kind: str = "A", edns: int | None = None, *options: EDNSOption) -> bytes:
    message = question(name, kind, edns)
    if options:
        message.ar[0].rdata.extend(options)
    return bytes(message.pack())


def text(data: bytes) -> list[str]:
    found = lines(DnsAnswer(DNSRecord.parse(data), len(data)))
    return [found[0], *sorted(found[1:])]


def small_zone() -> Zone:
    zone = Zone()
    zone.do("node n1 10.0.0.1")
    zone.do("service n1 web port=80")
    return zone


def test_a_request_is_finished_when_it_is_seen_again() -> None:
    zone = small_zone()
    sent = packet("web.service.consul")
    zone.send(sent)
    assert not zone.responder.finished[False].answers
    zone.send(sent)
    assert list(zone.responder.finished[False].answers) == [sent[2:]]
    assert text(zone.send(sent)) == ["NOERROR aa rd", "answer: web.service.consul. 0 A 10.0.0.1"]


def test_udp_and_tcp_answers_are_kept_apart() -> None:
    zone = Zone()
    for i in range(6):
        zone.do(f"node n{i} 10.0.0.{i + 1}")
        zone.do(f"service n{i} web port=80")
    sent = packet("web.service.consul")
    for _ in range(3):
        assert len(DNSRecord.parse(zone.send(sent)).rr) == 3
        assert len(DNSRecord.parse(zone.send(sent, tcp=True)).rr) == 6


def test_a_flood_of_names_that_do_not_exist_pushes_nothing_out() -> None:
    zone = small_zone()
    sent = packet("web.service.consul")
    zone.send(sent)
    zone.send(sent)
    for i in range(30_000):
        name = packet(f"x{i}.service.consul")
        zone.send(name)
        if i % 10 == 0:
            zone.send(name)
    assert sent[2:] in zone.responder.finished[False].answers
    assert zone.responder.finished[False].evicted == 0
    assert sum(cache.size for cache in zone.responder.caches) <= zone.responder.settings.cache_size
    assert zone.responder.missing.size <= zone.responder.settings.cache_size // 16
    assert len(zone.responder._once) <= 8192


def test_names_that_do_not_exist_are_kept_until_they_do() -> None:
    zone = small_zone()
    sent = packet("later.service.consul")
    for _ in range(3):
        assert text(zone.send(sent))[0] == "NXDOMAIN aa rd"
    assert list(zone.responder.missing.answers) == [sent[2:]]
    zone.do("service n1 later port=80")
    assert text(zone.send(sent))[0] == "NOERROR aa rd"


def test_resolvers_that_vary_the_case_of_names_get_it_back_without_being_kept() -> None:
    zone = small_zone()
    rng = Random(5)
    for _ in range(300):
        name = "".join(c.upper() if rng.random() < 0.5 else c for c in "web.service.consul")
        answer = DNSRecord.parse(zone.send(packet(name)))
        assert [str(answer.q.qname), str(answer.rr[0].rname)] == [name + ".", name + "."]
    assert len(zone.responder.resolved.answers) == 1


def test_the_client_subnet_is_given_back_with_the_scope_that_the_answer_has() -> None:
    zone = small_zone()
    zone.do('query {"Name": "q", "Service": {"Service": "web"}}')
    option = EDNSOption(8, b"\x00\x01\x18\x00\x01\x02\x03")
    for name, scope in (("web.service.consul", 0), ("q.query.consul", 24), ("nope.query.consul", 0)):
        for _ in range(4):
            answer = DNSRecord.parse(zone.send(packet(name, "A", 1232, option)))
            assert answer.ar[0].rdata[0].data == bytes((0, 1, 24, scope, 1, 2, 3))


def test_a_query_near_the_client_is_answered_by_who_asks() -> None:
    zone = Zone()
    for i in range(3):
        zone.do(f"node n{i} 10.0.0.{i + 1}")
        zone.do(f"service n{i} web port=80")
    entries = tuple(CoordinateEntry(f"n{i}", "", Coord(vec=(i / 10, *(0.0,) * 7))) for i in range(3))
    apply(zone.store, CoordinateUpdate(entries), NOW)
    zone.store.flush()
    zone.do('query {"Name": "near", "Service": {"Service": "web", "Near": "_ip"}}')
    for _ in range(4):
        for client, expected in ((b"\x0a\x00\x00\x03", "10.0.0.3"), (b"\x0a\x00\x00\x01", "10.0.0.1")):
            option = EDNSOption(8, b"\x00\x01\x20\x00" + client)
            answer = DNSRecord.parse(zone.send(packet("near.query.consul", "A", 1232, option)))
            assert str(answer.rr[0].rdata) == expected


def test_what_is_not_ours_is_forwarded_or_refused() -> None:
    zone = small_zone()
    assert text(zone.send(packet("www.example.com", "A", 1232))) == ["REFUSED rd"]
    settings = msgspec.structs.replace(zone.responder.settings, recursors=(("192.0.2.1", 53),))
    zone.responder.reload(settings)
    reply = zone.responder.respond(packet("www.example.com"), "127.0.0.1", tcp=False)
    assert isinstance(reply, Forward)
    assert text(reply.failure) == ["SERVFAIL rd ra"]
    assert text(zone.send(packet("web.service.consul")))[0] == "NOERROR aa rd ra"


def test_host_names_are_wanted_once_and_the_answer_is_not_kept() -> None:
    zone = small_zone()
    zone.do("service n1 out port=80 address=www.example.com")
    zone.responder.reload(msgspec.structs.replace(zone.responder.settings, recursors=(("192.0.2.1", 53),)))
    for _ in range(3):
        reply = zone.responder.respond(packet("out.service.consul"), "127.0.0.1", tcp=False)
        assert isinstance(reply, Wanted)
        assert reply.hosts == ("www.example.com",)
        assert text(reply.give_up({}, {}))[1:] == ["answer: out.service.consul. 0 CNAME www.example.com."]


def beyond_zone() -> Zone:
    """A zone that can ask other datacenters, and recursors."""
    zone = small_zone()
    settings = msgspec.structs.replace(zone.responder.settings, recursors=(("192.0.2.1", 53),))
    zone.responder = Responder(zone.store, settings, lambda: NOW, Random(4), beyond=True)
    return zone


def asked_beyond(zone: Zone, name: str, kind: str = "A") -> Wanted:
    """What must be asked before a name is answered, which is not kept however often it comes."""
    for _ in range(3):
        reply = zone.responder.respond(packet(name, kind), "127.0.0.1", tcp=False)
    assert isinstance(reply, Wanted), text(reply) if isinstance(reply, bytes) else reply
    return reply


def test_what_is_elsewhere_is_looked_up_and_answered_by_the_settings_here() -> None:
    zone = beyond_zone()
    zone.responder.reload(msgspec.structs.replace(zone.responder.settings, service_ttl={"web": 9}, node_ttl=4))
    wanted = asked_beyond(zone, "v1.web.service.dc2.consul")
    assert wanted.lookups == (Lookup("service", "dc2", "web", "v1"),)
    node = Node("", "far", "10.2.0.1", "dc2", {"wan": "99.2.0.1"})
    rows = [CheckServiceNode(node, NodeService(id="w", service="web", port=80), [])]
    reply = wanted.finish({}, {wanted.lookups[0]: Found(rows)})
    assert isinstance(reply, bytes)
    assert text(reply)[1:] == ["answer: v1.web.service.dc2.consul. 9 A 10.2.0.1"]
    named = asked_beyond(zone, "far.node.dc2.consul")
    reply = named.finish({}, {named.lookups[0]: Found(node=node)})
    assert isinstance(reply, bytes)
    assert text(reply)[1:] == ["answer: far.node.dc2.consul. 4 A 10.2.0.1"]


def test_what_is_elsewhere_may_be_a_host_name_that_is_to_be_asked_for_then() -> None:
    zone = beyond_zone()
    wanted = asked_beyond(zone, "web.service.dc2.consul")
    service = NodeService(id="w", service="web", port=80, address="www.example.com")
    found = {wanted.lookups[0]: Found([CheckServiceNode(Node("", "far", "10.2.0.1", "dc2"), service, [])])}
    then = wanted.finish({}, found)
    assert isinstance(then, Wanted)
    assert (then.hosts, then.lookups) == (("www.example.com",), ())
    reply = then.finish({"www.example.com": ()}, found)
    assert isinstance(reply, bytes)
    assert text(reply)[1:] == ["answer: web.service.dc2.consul. 0 CNAME www.example.com."]


def test_who_does_not_answer_elsewhere_and_what_is_not_there() -> None:
    zone = beyond_zone()
    for name in ("web.service.dc2.consul", "far.node.dc2.consul", "q.query.dc2.consul", "web.connect.dc2.consul"):
        wanted = asked_beyond(zone, name)
        codes = []
        for found in (Found(), Found(problem=UNKNOWN), Found(problem=FAILED)):
            reply = wanted.finish({}, {wanted.lookups[0]: found})
            assert isinstance(reply, bytes)
            codes.append(text(reply)[0].split()[0])
        assert codes == ["NXDOMAIN", "NXDOMAIN", "SERVFAIL"], name
    assert text(zone.send(packet("web.service.peer1.peer.consul")))[0].startswith("NXDOMAIN")


def test_a_query_that_finds_nothing_here_is_looked_up_where_it_fails_over_to() -> None:
    zone = beyond_zone()
    zone.do('query {"Name": "q", "Service": {"Service": "out", "Failover": {"NearestN": 1}}, "DNS": {"TTL": "8s"}}')
    wanted = asked_beyond(zone, "q.query.consul")
    assert [lookup.kind for lookup in wanted.lookups] == ["failover"]
    rows = [CheckServiceNode(Node("", "far", "10.2.0.1", "dc2"), NodeService(id="o", service="out"), [])]
    reply = wanted.finish({}, {wanted.lookups[0]: Found(rows)})
    assert isinstance(reply, bytes)
    assert text(reply)[1:] == ["answer: q.query.consul. 8 A 10.2.0.1"]
    zone.do("service n1 out port=80")
    assert text(zone.send(packet("q.query.consul")))[1:] == ["answer: q.query.consul. 8 A 10.0.0.1"]


def test_from_a_store_that_is_not_confirmed_nothing_is_told() -> None:
    zone = small_zone()
    for name in ("web.service.consul", "none.service.consul"):
        sent = packet(name)
        for _ in range(3):
            zone.send(sent)
        reply = zone.responder.respond(sent, "127.0.0.1", tcp=False, confirmed=False)
        assert isinstance(reply, Unconfirmed)
        assert text(reply.failure) == ["SERVFAIL rd ra"]
    outside = zone.responder.respond(packet("example.com"), "127.0.0.1", tcp=False, confirmed=False)
    assert isinstance(outside, bytes), "what is not under the domain needs no confirmation"
    assert text(outside)[0].startswith("REFUSED")


def test_other_settings_hold_from_the_next_answer_on() -> None:
    zone = small_zone()
    sent = packet("web.service.consul")
    for _ in range(3):
        zone.send(sent)
    zone.do('set service_ttl={"web":30}')
    assert text(zone.send(sent))[1] == "answer: web.service.consul. 30 A 10.0.0.1"


def test_cached_answers_are_those_made_afresh_whatever_is_written() -> None:
    """Random writes and questions: every answer, from whichever cache, says what one made from nothing says."""
    rng = Random(11)
    zone = Zone()
    zone.do("set udp_answer_limit=8")
    names = [f"{name}.{kind}.consul" for name in ("s0", "s1", "v1.s0") for kind in ("service", "connect", "query")]
    names += [f"n{i}.node.consul" for i in range(4)] + ["1.0.0.10.in-addr.arpa", "consul", "_s1._tcp.service.consul"]
    questions = [packet(name, kind, edns) for name in names for kind in ("A", "SRV", "ANY") for edns in (None, 4096)]
    for _ in range(2500):
        if rng.random() < 0.08:
            node = rng.randrange(4)
            match rng.randrange(5):
                case 0:
                    apply(zone.store, Deregister(f"n{node}"), NOW)
                    zone.store.flush()
                case 1 if not zone.store.queries.rows:
                    name = rng.choice(("s0", "s1"))
                    zone.do(f'query {{"Name": "{name}", "Service": {{"Service": "{name}"}}}}')
                case _:
                    zone.do(f"node n{node} 10.0.0.{rng.randrange(4)} meta.k={rng.randrange(3)}")
                    words = (
                        f"port={rng.randrange(3)} tag=v{rng.randrange(2)} check={rng.choice(('passing', 'critical'))}"
                    )
                    zone.do(f"service n{node} s{rng.randrange(2)} {words}")
        sent = rng.choice(questions)
        fresh = Responder(zone.store, zone.responder.settings, lambda: NOW, rng)
        expected = fresh.respond(sent, "127.0.0.1", tcp=False)
        assert isinstance(expected, bytes)
        assert text(zone.send(sent)) == text(expected)
    assert zone.responder.finished[False].stored > 20
    assert zone.responder.finished[False].dropped > 20


def test_settings_have_the_documented_defaults() -> None:
    settings = DnsSettings("here")
    assert settings.domains == (("consul",),)
    assert settings.ttl_of("web") == 0
    assert settings.udp_answer_limit == 3
