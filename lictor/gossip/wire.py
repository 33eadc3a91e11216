"""What datagrams and streams look like around their messages: compound, compressed, checksummed, sealed, labelled.

A datagram is, from the outside: a label header, a seal, a checksum, a compression, and inside a message or several in a
compound. A stream carries one message each way: a label header, then either a seal with its length or the plain
message, which may be compressed. Everything that reads is bounded and raises WireError, whatever arrives.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Generator, Sequence

import msgpack  # type: ignore[import-untyped]
import msgspec

from lictor.gossip import codec, encryption, lzw
from lictor.gossip.codec import Record, WireError, pack
from lictor.gossip.encryption import Entropy
from lictor.gossip.keyring import Keyring
from lictor.gossip.messages import Compressed, Kind, NodeState, PushPullHeader, UserHeader

MAX_LABEL = 255
MAX_PACKET_CONTENT = 1 << 20  # bytes that a datagram may unfold to
MAX_STREAM = 20 << 20  # bytes of a sealed or user message on a stream
MAX_STREAM_CONTENT = 40 << 20  # bytes that a stream's message may unfold to
MAX_STATES = 1 << 20  # nodes in one exchange
MAX_COMPOUND = 255
_MAX_WRAPPINGS = 4
COMPOUND_OVERHEAD = 2
COMPOUND_PART_OVERHEAD = 2
CHECKSUM_OVERHEAD = 5


def encode(kind: Kind, record: Record) -> bytes:
    """A message: its kind's byte and its fields."""
    return bytes((kind,)) + pack(record)


def compound(messages: Sequence[bytes]) -> bytes:
    """Up to 255 messages as one; a single one stays as it is."""
    if len(messages) == 1:
        return messages[0]
    lengths = b"".join(len(m).to_bytes(2, "big") for m in messages)
    return bytes((Kind.COMPOUND, len(messages))) + lengths + b"".join(messages)


def _parts(body: bytes) -> list[bytes]:
    """The whole messages of a compound; one that was cut off takes those behind it with it."""
    if not body:
        raise WireError("missing compound length byte")
    count = body[0]
    at = 1 + 2 * count
    if len(body) < at:
        raise WireError("truncated len slice")
    parts = []
    for n in range(count):
        end = at + int.from_bytes(body[1 + 2 * n : 3 + 2 * n], "big")
        if end > len(body):
            break
        parts.append(body[at:end])
        at = end
    return parts


def compress(message: bytes) -> bytes:
    """A message, wrapped in its compression."""
    return encode(Kind.COMPRESS, Compressed(0, lzw.compress(message)))


def _decompress(record: Compressed, limit: int) -> bytes:
    if record.algo != 0:
        raise WireError(f"Cannot decompress unknown algorithm {record.algo}")
    plain = lzw.decompress(record.buf, limit)
    if not plain:
        raise WireError("decompressed message is empty")
    return plain


class Message(msgspec.Struct, frozen=True):
    """A message's kind, which may be one that nobody knows, and its fields' bytes."""

    kind: int
    body: bytes


def messages_in(content: bytes) -> list[Message]:
    """The messages of an opened datagram, out of compounds and compressions. Raises WireError."""
    found: list[Message] = []
    budget = MAX_PACKET_CONTENT
    waiting = [(content, 0)]
    while waiting:
        data, depth = waiting.pop()
        if not data:
            raise WireError("missing message type byte")
        kind, body = data[0], data[1:]
        if kind not in (Kind.COMPOUND, Kind.COMPRESS):
            found.append(Message(kind, body))
            continue
        if depth == _MAX_WRAPPINGS:
            raise WireError("message is wrapped too many times")
        if kind == Kind.COMPOUND:
            waiting += [(part, depth + 1) for part in reversed(_parts(body))]
        else:
            plain = _decompress(codec.unpack(Compressed, body), budget)
            budget -= len(plain)
            waiting.append((plain, depth + 1))
    return found


class Sealer:
    """One pool's wrapping: its keys, its label, and what it insists on.

    `label` separates pools on one network. With `verify_incoming` off, plaintext is accepted although there are keys;
    with `verify_outgoing` off, plaintext is sent: the two steps in which a running pool becomes encrypted.
    """

    def __init__(
        self,
        keyring: Keyring,
        label: str = "",
        verify_incoming: bool = True,
        verify_outgoing: bool = True,
        compressing: bool = False,
        encryption_version: int = encryption.UNPADDED,
        entropy: Entropy = os.urandom,
    ) -> None:
        self.keyring = keyring
        self.label = label.encode()
        if len(self.label) > MAX_LABEL:
            raise ValueError(f"label is longer than {MAX_LABEL} bytes: {label!r:.60}")
        self.verify_incoming = verify_incoming
        self.verify_outgoing = verify_outgoing
        self.compressing = compressing
        self.encryption_version = encryption_version
        self._entropy = entropy

    @property
    def _header(self) -> bytes:
        return bytes((Kind.HAS_LABEL, len(self.label))) + self.label if self.label else b""

    @property
    def _sealing_key(self) -> bytes | None:
        return self.keyring.primary if self.verify_outgoing else None

    def overhead(self) -> int:
        """The bytes of a datagram that a message can't use."""
        sealed = encryption.overhead(self.encryption_version) if self._sealing_key else 0
        return len(self._header) + sealed + CHECKSUM_OVERHEAD

    def seal_packet(self, content: bytes, checksummed: bool) -> bytes:
        """A datagram; `checksummed` when its receiver is known to speak protocol version 5."""
        if self.compressing:
            shorter = compress(content)
            if len(shorter) < len(content):
                content = shorter
        if checksummed:
            content = bytes((Kind.HAS_CRC,)) + zlib.crc32(content).to_bytes(4, "big") + content
        key = self._sealing_key
        if key is not None:
            content = encryption.seal(self.encryption_version, key, content, self.label, self._entropy)
        return self._header + content

    def open_packet(self, data: bytes) -> bytes:
        """What is inside a datagram. Raises WireError when it is not ours, forged or broken."""
        content = self._without_label(data)
        if self.keyring.primary is not None:
            try:
                content = encryption.unseal(self.keyring.keys, content, self.label)
            except WireError:
                if self.verify_incoming:
                    raise
        if len(content) >= CHECKSUM_OVERHEAD and content[0] == Kind.HAS_CRC:
            if zlib.crc32(content[5:]) != int.from_bytes(content[1:5], "big"):
                raise WireError("invalid checksum")
            content = content[5:]
        if not content:
            raise WireError("empty packet")
        return content

    def _without_label(self, data: bytes) -> bytes:
        label, rest = b"", data
        if data and data[0] == Kind.HAS_LABEL:
            if len(data) < 2 or data[1] == 0 or len(data) < 2 + data[1]:
                raise WireError("cannot decode label; packet has been truncated")
            label, rest = data[2 : 2 + data[1]], data[2 + data[1] :]
        if label != self.label:
            raise WireError(f"unacceptable label {label.decode(errors='replace')!r}")
        return rest

    def seal_stream(self, content: bytes) -> bytes:
        """All that one side writes to a stream."""
        return self._header + self.seal_answer(content)

    def seal_answer(self, content: bytes) -> bytes:
        """What the accepting side of a stream writes: the label is said once, by the side that opened it."""
        if self.compressing:
            content = compress(content)
        key = self._sealing_key
        if key is None:
            return content
        size = encryption.sealed_size(self.encryption_version, len(content))
        start = bytes((Kind.ENCRYPT,)) + size.to_bytes(4, "big")
        return start + encryption.seal(self.encryption_version, key, content, start + self.label, self._entropy)


class StreamMessage(msgspec.Struct, frozen=True):
    """A stream's message. For an exchange of states, `header`, `states` and `user`; for others `body`, their fields."""

    kind: int
    body: bytes = b""
    header: PushPullHeader | None = None
    states: tuple[NodeState, ...] = ()
    user: bytes = b""


def push_pull(states: Sequence[NodeState], user: bytes, join: bool) -> bytes:
    """One side of an exchange of states."""
    parts = [encode(Kind.PUSH_PULL, PushPullHeader(len(states), len(user), join))]
    parts += [pack(state) for state in states]
    parts.append(user)
    return b"".join(parts)


class StreamReader:
    """Reads one message off a stream, however it arrives in pieces.

    `feed` returns the message once it is whole, None before, and raises WireError as soon as it cannot become one.
    `labelled` on the side that accepted the stream.
    """

    def __init__(self, sealer: Sealer, labelled: bool) -> None:
        self._held = bytearray()
        self._whole = _Reading(sealer, self._held).message(labelled)
        self._result: StreamMessage | None = None
        next(self._whole)

    def feed(self, data: bytes) -> StreamMessage | None:
        """Takes what arrived."""
        if self._result is None:
            self._held += data
            try:
                self._whole.send(None)
            except StopIteration as done:
                self._result = done.value
        return self._result


class _Reading:
    """What is to be read next out of `held`. Knows nothing of the reader, so that what a stream that ends early leaves
    behind is gone with the reader.
    """

    def __init__(self, sealer: Sealer, held: bytearray) -> None:
        self._sealer = sealer
        self._held = held

    def _take(self, size: int) -> Generator[None, None, bytes]:
        while len(self._held) < size:
            yield
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken

    def message(self, labelled: bool) -> Generator[None, None, StreamMessage]:
        """A stream's one message."""
        sealer = self._sealer
        first = (yield from self._take(1))[0]
        label = b""
        if labelled and first == Kind.HAS_LABEL:
            size = (yield from self._take(1))[0]
            label = yield from self._take(size)
            first = (yield from self._take(1))[0]
        if labelled and label != sealer.label:
            raise WireError(f"unacceptable label {label.decode(errors='replace')!r}")
        if first == Kind.ENCRYPT:
            plain = yield from self._unsealed()
            first = plain[0]
            self._held[:] = plain[1:]
        elif sealer.keyring.primary is not None and sealer.verify_incoming:
            raise WireError("Encryption is configured but remote state is not encrypted")
        if first == Kind.COMPRESS:
            unpacker = _Unpacker(self._held)
            wrapped = codec.read(Compressed, (yield from unpacker.next()))
            plain = _decompress(wrapped, MAX_STREAM_CONTENT)
            first = plain[0]
            self._held[:] = plain[1:]
        return (yield from self._body(first))

    def _unsealed(self) -> Generator[None, None, bytes]:
        sealer = self._sealer
        if sealer.keyring.primary is None:
            raise WireError("Remote state is encrypted and encryption is not configured")
        length = yield from self._take(4)
        size = int.from_bytes(length, "big")
        if size > MAX_STREAM:
            raise WireError(f"Remote node state is larger than limit ({size})")
        sealed = yield from self._take(size)
        bound_to = bytes((Kind.ENCRYPT,)) + length + sealer.label
        plain = encryption.unseal(sealer.keyring.keys, sealed, bound_to)
        if not plain:
            raise WireError("sealed stream is empty")
        return plain

    def _body(self, kind: int) -> Generator[None, None, StreamMessage]:
        unpacker = _Unpacker(self._held)
        if kind == Kind.PUSH_PULL:
            header = codec.read(PushPullHeader, (yield from unpacker.next()))
            if not 0 <= header.nodes <= MAX_STATES:
                raise WireError(f"number of nodes in header ({header.nodes}) exceeds limit")
            if not 0 <= header.user_state_len <= MAX_STREAM:
                raise WireError(f"user state length ({header.user_state_len}) exceeds limit")
            states = []
            for _ in range(header.nodes):
                states.append(codec.read(NodeState, (yield from unpacker.next())))
            user = yield from unpacker.raw(header.user_state_len)
            return StreamMessage(kind, header=header, states=tuple(states), user=user)
        if kind == Kind.USER:
            size = codec.read(UserHeader, (yield from unpacker.next())).user_msg_len
            if not 0 <= size <= MAX_STREAM:
                raise WireError(f"user message length ({size}) exceeds limit")
            return StreamMessage(kind, user=(yield from unpacker.raw(size)))
        if kind in (Kind.PING, Kind.ACK, Kind.ERROR):
            return StreamMessage(kind, body=msgpack.packb((yield from unpacker.next()), use_bin_type=False))
        raise WireError(f"received invalid msgType ({kind})")


class _Unpacker:
    """Values out of bytes that are still arriving in `held`."""

    def __init__(self, held: bytearray) -> None:
        self._held = held
        self._fed = 0
        self._unpacker = msgpack.Unpacker(raw=True, strict_map_key=False, max_buffer_size=MAX_STREAM_CONTENT)

    def _take_in(self) -> None:
        if self._held:
            self._fed += len(self._held)
            if self._fed > MAX_STREAM_CONTENT:
                raise WireError(f"message on a stream is longer than {MAX_STREAM_CONTENT} bytes")
            self._unpacker.feed(bytes(self._held))
            self._held.clear()

    def next(self) -> Generator[None, None, object]:
        """The next value."""
        while True:
            self._take_in()
            try:
                return self._unpacker.unpack()
            except msgpack.OutOfData:
                pass
            except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
                raise WireError(f"not MessagePack: {error}") from None
            yield

    def raw(self, size: int) -> Generator[None, None, bytes]:
        """The next `size` bytes, whatever they are."""
        got = bytearray()
        while True:
            self._take_in()
            got += self._unpacker.read_bytes(size - len(got))
            if len(got) == size:
                return bytes(got)
            yield
