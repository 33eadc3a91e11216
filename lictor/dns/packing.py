"""From a resolved question to an answer's bytes: the parts put in order, cut to what the transport carries, packed.

How much an answer holds follows the reference: over UDP 512 bytes, or what EDNS offers; without that offer also no more
than `udp_answer_limit` records (at most 8), and names counted at full length. When records are left out, of the
additional ones only those stay that give the address of an SRV record's target.
"""

from collections.abc import Sequence

from lictor.dns.message import (
    AA,
    CNAME,
    HEADER,
    NOERROR,
    RA,
    SRV,
    TC,
    Packer,
    Record,
    Request,
    header,
    opt_record,
    plain_size,
)
from lictor.dns.resolver import Part, Resolved
from lictor.dns.rotation import order, rows_of
from lictor.dns.settings import DnsSettings

PLAIN_UDP = 512
MAX_UDP = 65535 - 68
MAX_UDP_ANSWERS = 8
MAX_TCP = 65535 - HEADER
UDP_HEADER = 8
SMALLEST_RECORD = 16  # an A record with its name compressed
MAX_TCP_ANSWERS = 4096
FAR = 100


def turns(resolved: Resolved) -> int:
    """How many different orders the parts are to be named in."""
    return 1 if resolved.in_order or len(resolved.parts) < 2 else rows_of(len(resolved.parts))


def pack(resolved: Resolved, request: Request, settings: DnsSettings, tcp: bool, row: int) -> bytes:
    """The answer without its first two bytes, the id. `row` says whose turn it is, see `rotation`."""
    edns = request.edns
    opt = b""
    if edns is not None:
        depends = edns.subnet is not None and not resolved.subnet_global and resolved.rcode == NOERROR
        opt = opt_record(edns, edns.subnet[2] if depends and edns.subnet is not None else 0)
    offered = max(PLAIN_UDP, min(edns.size, MAX_UDP)) if edns is not None else PLAIN_UDP
    budget = MAX_TCP - len(opt) if tcp else offered - max(UDP_HEADER, len(opt))
    parts, left_out = _ordered(resolved, row, min(budget // SMALLEST_RECORD, MAX_TCP_ANSWERS) + 1)
    answers = [*resolved.lead, *(record for part in parts for record in part.answers)]
    authorities = [record for part in parts for record in part.authorities]
    additionals = [record for part in parts for record in part.additionals]
    if not answers and resolved.soa is not None:
        authorities = [resolved.soa]
    compress = not settings.disable_compression
    most = min(MAX_UDP_ANSWERS, settings.udp_answer_limit) if settings.udp_answer_limit > 0 else MAX_UDP_ANSWERS
    full_length = not compress
    total = len(answers)
    everything = additionals
    if not tcp and offered == PLAIN_UDP and total > most:
        answers = answers[:most]
        additionals = _needed(answers, everything)
        full_length = True
    body = _fitting(request, answers, authorities, additionals, compress, full_length, budget)
    too_long = body is None
    if body is None:
        authorities = []
        answers, additionals, body = _cut(request, answers, additionals, everything, compress, full_length, budget)
    flags = request.reply_flags | resolved.rcode
    if resolved.recurse:
        flags |= RA
    else:
        flags |= AA | (RA if settings.recursors else 0)
    if settings.enable_truncate and (left_out or len(answers) < total or (tcp and too_long)):
        flags |= TC
    counts = header(flags, len(answers), len(authorities), len(additionals) + bool(opt))
    return b"".join((counts, request.question, body, opt))


def _ordered(resolved: Resolved, row: int, most: int) -> tuple[Sequence[Part], bool]:
    """The parts whose turn it is, and whether others are left out that another answer could hold."""
    parts = resolved.parts
    count = len(parts)
    wanted = min(count, resolved.limit or count)
    take = min(wanted, most)
    if turns(resolved) > 1:
        return [parts[i] for i in order(count, row, take)], take < wanted
    return parts[:take], take < wanted


def _size(request: Request, records: Sequence[Record], compress: bool, full_length: bool) -> tuple[int, bytes | None]:
    """How long the message counts, and the records' bytes where they had to be made to know it."""
    start = HEADER + len(request.question)
    if full_length:
        return start + sum([plain_size(record, request.labels) for record in records]), None
    body = Packer(request.labels, compress).pack(records)
    return start + len(body), body


def _fitting(
    request: Request,
    answers: Sequence[Record],
    authorities: Sequence[Record],
    additionals: Sequence[Record],
    compress: bool,
    full_length: bool,
    budget: int,
) -> bytes | None:
    """The sections' bytes, or None where the message would be longer than `budget` bytes."""
    records = [*answers, *authorities, *additionals]
    size, body = _size(request, records, compress, full_length)
    if size > budget:
        return None
    return body if body is not None else Packer(request.labels, compress).pack(records)


def _cut(
    request: Request,
    answers: list[Record],
    additionals: list[Record],
    everything: Sequence[Record],
    compress: bool,
    full_length: bool,
    budget: int,
) -> tuple[list[Record], list[Record], bytes]:
    """As many of the first answers as fit, with what they need of `everything`; the very first goes out in any case.

    As in the reference, a message that is up to FAR bytes too long loses its answers one by one, so it may keep fewer
    than would fit; one that is longer keeps as many as fit.
    """
    count = len(answers)
    kept = additionals
    while True:
        size, body = _size(request, [*answers[:count], *kept], compress, full_length)
        if size <= budget or count <= 1:
            break
        count = (
            count - 1 if size - budget <= FAR else _most(request, answers, everything, compress, full_length, budget)
        )
        kept = _needed(answers[:count], everything)
    if size > budget:
        kept = []
        body = None
    if body is None:
        body = Packer(request.labels, compress).pack([*answers[:count], *kept])
    return answers[:count], kept, body


def _most(
    request: Request,
    answers: Sequence[Record],
    everything: Sequence[Record],
    compress: bool,
    full_length: bool,
    budget: int,
) -> int:
    """How many of the first answers fit, with what they need; at least 1."""
    fit, too_many = 1, len(answers) + 1
    while too_many - fit > 1:
        middle = (fit + too_many) // 2
        kept = answers[:middle]
        size, _ = _size(request, [*kept, *_needed(kept, everything)], compress, full_length)
        if size <= budget:
            fit = middle
        else:
            too_many = middle
    return fit


def _needed(answers: Sequence[Record], additionals: Sequence[Record]) -> list[Record]:
    """Of the additional records those with which a client reaches the answers' SRV targets."""
    index: dict[tuple[bytes, ...], Record] = {}
    for record in additionals:
        if record.name is not None:
            index.setdefault(tuple([label.lower() for label in record.name]), record)
    needed: list[Record] = []
    done: set[tuple[bytes, ...]] = set()
    for answer in answers:
        target = answer.target if answer.type == SRV else None
        while target is not None:
            key = tuple([label.lower() for label in target])
            found = index.get(key)
            if key in done or found is None:
                break
            done.add(key)
            needed.append(found)
            target = found.target if found.type == CNAME else None
    return needed
