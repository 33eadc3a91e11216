"""Packets and streams as the pool's other implementations write and read them."""

from __future__ import annotations

import random
import zlib

import msgpack  # type: ignore[import-untyped]
import pytest

from lictor.gossip import codec, lzw, serf_messages, wire
from lictor.gossip.codec import WireError
from lictor.gossip.keyring import Keyring, KeyringError, decode_key
from lictor.gossip.messages import Ack, Alive, Kind, NodeState, Ping, Suspect, ip_text, packed_ip
from lictor.gossip.wire import Sealer, StreamReader
from lictor.model.coordinate_entry import Coord

KEY = bytes(range(16))
OTHER = bytes(range(1, 33))


def test_a_message_has_go_s_field_names_in_their_order_and_old_raw_lengths() -> None:
    message = wire.encode(Kind.SUSPECT, Suspect(3, "n" * 40, "b"))
    assert message == b"\x03\x83\xa4From\xa1b\xabIncarnation\x03\xa4Node\xda\x00\x28" + b"n" * 40


def test_what_is_absent_is_nil_and_an_unnamed_source_is_left_out() -> None:
    assert wire.encode(Kind.ACK, Ack(7)) == b"\x02\x82\xa7Payload\xc0\xa5SeqNo\x07"
    assert wire.encode(Kind.PING, Ping(300, "a")) == b"\x00\x82\xa4Node\xa1a\xa5SeqNo\xcd\x01\x2c"


def test_records_survive_the_wire() -> None:
    alive = Alive(9, "node", packed_ip("10.0.0.1"), 8301, b"\xff\x80", bytes((1, 5, 2, 2, 5, 4)))
    assert codec.unpack(Alive, wire.encode(Kind.ALIVE, alive)[1:]) == alive
    state = serf_messages.SerfState(
        5, {"a": 2**40}, ("b",), 7, (serf_messages.EventsAt(6, (serf_messages.HeldEvent("deploy", b"1"),)),), 1
    )
    assert (
        codec.unpack(serf_messages.SerfState, serf_messages.encode(serf_messages.SerfKind.PUSH_PULL, state)[1:])
        == state
    )


def test_fields_nobody_knows_are_passed_over_and_absent_ones_are_zero() -> None:
    assert codec.unpack(Ack, msgpack.packb({"SeqNo": 4, "Later": [1, {}]})) == Ack(4)
    assert codec.unpack(Suspect, msgpack.packb({"Node": "x"})) == Suspect(0, "x", "")


def test_a_named_byte_type_written_as_an_array_is_read() -> None:
    # Both are seen from other implementations: versions as raw bytes and as an array of numbers.
    assert codec.unpack(Alive, msgpack.packb({"Vsn": b"\x01\x05\x02"}, use_bin_type=False)).vsn == b"\x01\x05\x02"
    assert codec.unpack(Alive, msgpack.packb({"Addr": [127, 0, 0, 1]})).addr == b"\x7f\x00\x00\x01"


@pytest.mark.parametrize(
    "fields",
    [{"SeqNo": -1}, {"SeqNo": 2**32}, {"SeqNo": "1"}, {"SeqNo": 1.5}, {"SeqNo": True}, [1], 7, {"Payload": {}}],
)
def test_fields_of_a_wrong_type_or_range_are_refused(fields: object) -> None:
    with pytest.raises(WireError):
        codec.unpack(Ack, msgpack.packb(fields))


def test_tags_start_with_their_magic_byte_and_older_metadata_is_a_role() -> None:
    assert serf_messages.encode_tags({"role": "consul"}) == b"\xff\x81\xa4role\xa6consul"
    assert serf_messages.decode_tags(b"\xff\x81\xa4role\xa6consul") == {"role": "consul"}
    assert serf_messages.decode_tags(b"web") == {"role": "web"}


def test_a_coordinate_travels_in_an_ack() -> None:
    here = Coord(vec=(0.5,) * 8, error=0.25, adjustment=-0.001, height=1e-4)
    assert serf_messages.decode_coordinate(serf_messages.encode_coordinate(here)) == here
    with pytest.raises(WireError):
        serf_messages.decode_coordinate(serf_messages.encode_coordinate(here)[:-3])


def test_lzw_is_that_of_go() -> None:
    # Written by Go's compress/lzw, least significant bit first, literals of 8 bits.
    assert lzw.compress(b"") == bytes.fromhex("000302")
    assert lzw.compress(b"a" * 10) == bytes.fromhex("00c3081c483020")


@pytest.mark.parametrize("size", [0, 1, 253, 254, 255, 510, 765, 3838, 3839, 3840, 3841, 9000])
@pytest.mark.parametrize("letters", [1, 3, 256])
def test_lzw_gives_back_what_it_took(size: int, letters: int) -> None:
    rng = random.Random(size)
    data = bytes(rng.randrange(letters) for _ in range(size))
    assert lzw.decompress(lzw.compress(data), size) == data


def test_lzw_stops_at_its_limit() -> None:
    with pytest.raises(WireError, match="longer than 1000 bytes"):
        lzw.decompress(lzw.compress(bytes(100_000)), 1000)


def test_a_compound_cut_off_gives_the_messages_before_the_cut() -> None:
    whole = wire.compound([b"\x02one", b"\x03two", b"\x04three"])
    assert [m.kind for m in wire.messages_in(whole)] == [2, 3, 4]
    assert [m.body for m in wire.messages_in(whole[:-1])] == [b"one", b"two"]


def test_wrappings_without_end_are_refused() -> None:
    content = b"\x02x"
    for _ in range(5):
        content = wire.compress(content)
    with pytest.raises(WireError, match="wrapped"):
        wire.messages_in(content)


@pytest.mark.parametrize("label", ["", "dc1.alpha"])
@pytest.mark.parametrize("keys", [(), (KEY,), (OTHER, KEY)])
@pytest.mark.parametrize("compressing", [False, True])
@pytest.mark.parametrize("version", [0, 1])
def test_a_packet_opens_to_what_was_sealed(
    label: str, keys: tuple[bytes, ...], compressing: bool, version: int
) -> None:
    ring = Keyring(keys[0], keys[1:]) if keys else Keyring()
    sealer = Sealer(ring, label, compressing=compressing, encryption_version=version)
    message = b"\x02" + b"abc" * 50
    for checksummed in (False, True):
        data = sealer.seal_packet(message, checksummed)
        assert wire.messages_in(sealer.open_packet(data)) == [wire.Message(2, b"abc" * 50)]
        if keys:
            assert b"abcabc" not in data
            assert len(data) <= len(message) + sealer.overhead()


def test_the_checksum_is_crc32_in_network_order() -> None:
    data = Sealer(Keyring()).seal_packet(b"\x02abc", True)
    assert data == b"\x0c" + zlib.crc32(b"\x02abc").to_bytes(4, "big") + b"\x02abc"
    with pytest.raises(WireError, match="checksum"):
        Sealer(Keyring()).open_packet(data[:-1] + b"d")


def test_a_wrong_key_label_or_plaintext_is_refused() -> None:
    sealer = Sealer(Keyring(KEY), "a")
    data = sealer.seal_packet(b"\x02abc", False)
    with pytest.raises(WireError, match="label"):
        Sealer(Keyring(KEY), "b").open_packet(data)
    with pytest.raises(WireError, match="decrypt"):
        Sealer(Keyring(OTHER), "a").open_packet(data)
    with pytest.raises(WireError):
        sealer.open_packet(Sealer(Keyring(), "a").seal_packet(b"\x02abc", False))


def test_a_pool_that_becomes_encrypted_reads_both() -> None:
    plain = Sealer(Keyring())
    step1 = Sealer(Keyring(KEY), verify_incoming=False, verify_outgoing=False)
    step2 = Sealer(Keyring(KEY), verify_incoming=False)
    for sender in (plain, step1, step2):
        assert step1.open_packet(sender.seal_packet(b"\x02abc", False)) == b"\x02abc"
    assert plain.open_packet(step1.seal_packet(b"\x02abc", False)) == b"\x02abc"


STATES = tuple(NodeState(f"n{i}", packed_ip("127.0.0.1"), 7000 + i, i, i % 4, b"m" * i) for i in range(60))


@pytest.mark.parametrize("sealer", [Sealer(Keyring()), Sealer(Keyring(KEY), "x"), Sealer(Keyring(), compressing=True)])
@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_an_exchange_of_states_is_read_however_it_arrives(sealer: Sealer, piece: int) -> None:
    data = sealer.seal_stream(wire.push_pull(STATES, b"\x02user", True))
    reader = StreamReader(sealer, labelled=True)
    for at in range(0, len(data), piece):
        assert (got := reader.feed(data[at : at + piece])) is None or at + piece >= len(data)
    assert got is not None
    assert got.states == STATES
    assert got.user == b"\x02user"
    assert got.header is not None
    assert got.header.join


def test_over_long_exchanges_are_refused_before_they_are_read() -> None:
    for fields in ({"Nodes": 1 << 30}, {"Nodes": -1}, {"UserStateLen": 1 << 30}):
        with pytest.raises(WireError, match="limit"):
            StreamReader(Sealer(Keyring()), labelled=True).feed(b"\x06" + msgpack.packb(fields))
    with pytest.raises(WireError, match="limit"):
        StreamReader(Sealer(Keyring(KEY)), labelled=True).feed(b"\x0a\xff\xff\xff\xff")


def test_garbage_is_refused_and_nothing_else_happens() -> None:
    rng = random.Random(4)
    sealer, sealed = Sealer(Keyring()), Sealer(Keyring(KEY))
    good = [
        wire.compound([wire.encode(Kind.PING, Ping(1, "a")), wire.encode(Kind.ACK, Ack(1, b"x" * 40))]),
        wire.compress(wire.encode(Kind.SUSPECT, Suspect(1, "a", "b"))),
        wire.push_pull(STATES[:4], b"\x02user", True),
        sealed.seal_packet(b"\x02abc", True),
        sealed.seal_stream(wire.push_pull(STATES[:2], b"", False)),
    ]
    for _ in range(3000):
        data = bytearray(rng.choice(good) if rng.random() < 0.8 else rng.randbytes(rng.randrange(60)))
        for _ in range(rng.randrange(4)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        data = data[: rng.randrange(len(data) + 1)] if rng.random() < 0.3 else data
        for opener in (sealer, sealed):
            try:
                for message in wire.messages_in(opener.open_packet(bytes(data))):
                    codec.unpack(Alive, message.body)
            except WireError:
                pass
            try:
                StreamReader(opener, labelled=True).feed(bytes(data))
            except WireError:
                pass


def test_a_keyring_rotates_without_a_moment_that_refuses() -> None:
    ring = Keyring(KEY)
    ring.install(OTHER)
    ring.install(OTHER)
    assert list(ring.keys) == [KEY, OTHER]
    ring.use(OTHER)
    assert ring.primary == OTHER
    with pytest.raises(KeyringError, match="primary"):
        ring.remove(OTHER)
    ring.remove(KEY)
    assert list(ring.keys) == [OTHER]
    with pytest.raises(KeyringError, match="not in the keyring"):
        ring.use(KEY)
    with pytest.raises(KeyringError, match="16, 24 or 32"):
        ring.install(b"short")
    with pytest.raises(KeyringError, match="base64"):
        decode_key("not base64!")
    assert "\\x" not in repr(ring)


def test_an_address_in_ipv6_s_form_of_ipv4_is_the_ipv4_address() -> None:
    assert ip_text(bytes(10) + b"\xff\xff\x7f\x00\x00\x01") == "127.0.0.1"
    assert ip_text(packed_ip("::1")) == "::1"
    with pytest.raises(WireError):
        ip_text(b"abc")
