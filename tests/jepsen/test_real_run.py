"""The parts of a run that need no servers: what judges find, what the client tells apart, what a nemesis may do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from jepsen import client, journal, nemesis, report, timeline
from jepsen.client import Client, Lost, NotSent
from jepsen.journal import FAIL, INFO, NONE, OK, SECOND, Fault, Head, History, Op, Remark
from jepsen.workloads import WORKLOADS
from tests.patience import PATIENCE


def op(name: str, value: Any, result: Any, at: float, **more: Any) -> Op:
    """An answered operation of 0.1 s, from a time in seconds."""
    end = more.pop("end", FAIL if result is False else OK)
    server = more.pop("server", "n1")
    called = int(at * SECOND)
    return Op(0, name, called, called + SECOND // 10, end, server, value=value, result=result, **more)


def history(workload: str, *entries: Op | Fault | Remark, nemesis: str = "kill") -> History:
    """A history of three servers; it was settled after 60 s."""
    head = Head(workload, "lictor", nemesis, 3, 60.0, 1, 0.0)
    phases = [
        Remark(0, "phase", "load"),
        Remark(60 * SECOND, "phase", "settled"),
        Remark(60 * SECOND, "phase", "finish"),
    ]
    return History(
        head,
        tuple(sorted((one for one in entries if isinstance(one, Op)), key=lambda one: one.called)),
        tuple(one for one in entries if isinstance(one, Fault)),
        (*phases, *(one for one in entries if isinstance(one, Remark))),
    )


def judged(workload: str, *entries: Op | Fault | Remark) -> list[str]:
    """What is wrong with it."""
    return [one.text for one in WORKLOADS[workload](workload).judge(history(workload, *entries))]


def one_problem(problems: list[str], words: str) -> None:
    assert len(problems) == 1 and words in problems[0], problems


def test_a_set_that_lost_an_acknowledged_number_is_found() -> None:
    added = [op("add", 1, True, 1), op("add", 2, None, 2, end=INFO), op("add", 3, None, 3, end=NONE)]
    assert not judged("set", *added, op("read", None, (1,), 9, how="last"))
    assert not judged("set", *added, op("read", None, (1, 2), 9, how="last"))
    lost = judged("set", *added, op("read", None, (2,), 9, how="last", server="n2"))
    assert "n2 has lost 1 numbers (1) of 1 acknowledged" in lost[0]
    extra = judged("set", *added, op("read", None, (1, 3), 9, how="last"))
    assert "n1 holds 1 numbers (3) that were refused or never added" in extra[0]
    one_problem(judged("set-cas", *added, op("read", None, (1, 1), 9, how="last")), "added twice")
    one_problem(judged("set", *added), "there was no last read")


def test_a_set_read_that_goes_back_in_time_is_found_though_the_last_read_is_whole() -> None:
    added = [op("add", 1, True, 1), op("add", 2, True, 2)]
    one_problem(
        judged("set", *added, op("read", None, (1,), 3), op("read", None, (1, 2), 9, how="last")), "not linearizable"
    )


def test_a_counter_that_counts_too_much_or_too_little_is_found() -> None:
    first, second = op("cas", (None, (1, "a1")), True, 1), op("cas", ((1, "a1"), (2, "a2")), True, 2)
    assert not judged("counter", first, second, op("read", None, (2, "a2"), 9, how="last"))
    less = judged("counter", first, second, op("read", None, (1, "a1"), 9, how="last"))
    assert "n1 has counted 1; 2 additions were acknowledged, 0 may be" in less[0]
    refused = op("cas", ((1, "a1"), (2, "a3")), False, 2)
    found = judged("counter", first, refused, op("read", None, (2, "a3"), 9, how="last"))
    assert any("refused the addition a3, and it was made" in one for one in found)


def test_a_session_that_ends_early_is_found() -> None:
    life = [op("create", 3, "s", 1), op("renew", None, True, 3, key="s")]
    one_problem(judged("session", *life, op("look", None, False, 5.5, key="s", server="n3")), "n3 says")
    one_problem(judged("session", *life, op("look", None, False, 2, key="s")), "has ended")
    assert not judged("session", *life, op("look", None, False, 6.1, key="s"))


def test_a_session_that_lives_on_is_found() -> None:
    life = [op("create", 3, "s", 1), op("look", None, True, 75, key="s")]
    assert not judged("session", *life)
    one_problem(judged("session", *life, op("look", None, True, 82, key="s")), "still has the session s 81 s after")


def test_a_lock_with_two_holders_is_found() -> None:
    def acquire(session: str, at: float) -> Op:
        return op("acquire", (session, f"{session}{at}"), True, at, key="k")

    assert not judged("lock", acquire("a", 1), op("end", "a", True, 2, key="k"), acquire("b", 3))
    one_problem(judged("lock", acquire("a", 1), acquire("b", 3)), "not linearizable")
    forgotten = op("acquire", ("a", "x"), None, 4, end=NONE, error='invalid session "a"', key="k")
    one_problem(judged("lock", acquire("a", 1), forgotten), "does not know the session a, which was not ended")


def test_stale_reads_must_be_true_ordered_and_honest() -> None:
    def read(number: int, at: float, contact: float = 0.0, known: bool = True, server: str = "n1") -> Op:
        return op("read", None, (number, contact, known), at, key="k", server=server)

    written = [op("write", 1, True, 1, key="k"), op("write", 2, True, 2, key="k")]
    assert not judged("stale", *written, read(2, 3), read(1, 3.05), read(1, 4, server="n2")), "each at its own pace"
    one_problem(judged("stale", *written, read(3, 3)), "told 3 of k, which nobody had written")
    one_problem(judged("stale", *written, read(2, 3), read(1, 4)), "told 1 of k after it had told 2")
    restarted = Remark(int(3.5 * SECOND), "start", "n1")
    assert not judged("stale", *written, read(2, 3), read(1, 4), restarted), "it may have to catch up again"
    alone = Fault("isolate", ("n1",), 2 * SECOND, 2 * SECOND, 12 * SECOND)
    one_problem(judged("stale", *written, alone, read(2, 10, 8.0, known=True)), "knows a leader after 8.0 s alone")
    one_problem(judged("stale", *written, alone, read(2, 10, 1.0, known=False)), "heard the leader 1.0 s ago")
    assert not judged("stale", *written, alone, read(2, 10, 7.9, known=False), read(2, 11, server="n2"))


def test_a_stale_read_of_a_register_is_found_and_drawn_with_the_fault_that_caused_it(tmp_path: Path) -> None:
    entries = [
        op("write", 1, True, 1, key="k"),
        op("write", 2, True, 2, key="k"),
        op("read", None, 1, 3, key="k", server="n2"),
    ]
    fault = Fault("isolate", ("n2",), 2 * SECOND, 2 * SECOND, 5 * SECOND)
    whole = history("register", *entries, fault)
    found = report.judge(whole)
    assert not found.good
    assert "1 PROBLEMS" in report.text(whole, found)
    (drawn,) = report.draw(whole, found, tmp_path)
    assert "isolate n2" in drawn.read_text()


def test_a_report_tells_when_nobody_could_write_and_how_soon_somebody_could() -> None:
    fault = Fault("kill-leader", ("n1",), 10 * SECOND, 10 * SECOND, 20 * SECOND)
    whole = history(
        "register",
        *(op("write", n, True, n / 2, key="k") for n in range(1, 20)),
        op("write", 99, True, 9.95, key="k"),
        op("write", 100, True, 14, key="k"),
        op("read", None, 100, 11, key="k", end=NONE, error="500 No cluster leader", again=False),
        op("read", None, 100, 14.5, key="k", again=True),
        fault,
    )
    found = report.judge(whole)
    assert found.recovery == {"kill-leader": (4.1,)}
    assert [(round(gap.began, 2), round(gap.ended, 2)) for gap in found.gaps] == [(10.05, 14.1)]
    assert found.errors == (1, 1, 0)
    drawing = timeline.svg(whole)
    assert "kill-leader n1" in drawing
    ElementTree.fromstring(drawing)


def test_what_one_retry_does_not_mend_is_a_problem_of_a_rolling_restart_only() -> None:
    failed = op("add", 1, None, 2, end=INFO, error="500 No cluster leader", again=True)
    last = op("read", None, (), 9, how="last")
    assert not report.judge(history("set", failed, last)).problems
    (problem,) = report.judge(history("set", failed, last, nemesis="rolling")).problems
    assert problem.text == "one retry did not mend a add: 500 No cluster leader (n1)"


def test_a_server_that_ended_by_itself_is_a_problem() -> None:
    whole = history("register", Remark(5, "accident", "n2 ended by itself with code 1"))
    assert [problem.text for problem in report.judge(whole).problems] == ["n2 ended by itself with code 1"]


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    head = Head("counter", "lictor", "none", 3, 1.0, 7, 0.0)
    book = journal.Journal(path, head, lambda: 17)
    later = op("cas", ((1, "a"), (2, "b")), True, 2)
    book.write(later)
    book.write(op("read", None, None, 1))
    book.remark("phase", "load")
    book.close()
    found = journal.read(path)
    assert found.head == head
    assert [one.name for one in found.ops] == ["read", "cas"]
    assert found.ops[1] == later, "lists are tuples again"
    assert found.phase("load") == 17
    path.write_text(path.read_text() + '{"type":"op"}\n')
    with pytest.raises(ValueError, match=r"history.jsonl:5: .*missing required field"):
        journal.read(path)


@asynccontextmanager
async def listening(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """A server of 127.0.0.1 that answers a connection so, and then hangs up."""
    handlers = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        await answer(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    monkeypatch.setattr(client, "HTTP_PORT", server.sockets[0].getsockname()[1])
    async with server:
        yield
        await asyncio.gather(*filter(None, handlers))


async def test_a_client_tells_a_request_that_was_not_sent_from_a_lost_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    asked = Client(PATIENCE)
    async with listening(hang_up, monkeypatch):
        with pytest.raises(Lost):
            await asked.ask("127.0.0.1", "PUT", "/")
    with pytest.raises(NotSent):
        await asked.ask("127.0.0.1", "PUT", "/")

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(say_nothing, monkeypatch):
        # Where the machine stands still, there is no connection in so short a time.
        for seconds in (0.05, 1, 10, 60):
            with pytest.raises((Lost, NotSent)) as told:
                await asked.ask("127.0.0.1", "GET", "/", timeout=seconds)
            if told.type is Lost:
                break
        assert str(told.value) == f"no answer within {seconds:g} s"


async def test_a_client_reads_whole_and_chunked_answers_on_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for text in (
            b"Content-Length: 2\r\n\r\nok",
            b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
        ):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nX-Consul-Index: 5\r\n" + text)
        await reader.read()

    async with listening(answer, monkeypatch):
        asked = Client(PATIENCE)
        first = await asked.ask("127.0.0.1", "GET", "/a")
        second = await asked.ask("127.0.0.1", "GET", "/b")
        asked.close()
    assert (first.status, first.body, first.headers["x-consul-index"]) == (200, b"ok", "5")
    assert second.body == b"abcd"
    assert connections == 1


def test_a_nemesis_is_made_of_faults_that_can_be_done() -> None:
    def names(text: str, servers: int = 3, transfers: bool = True, obstacle: str = "") -> list[str]:
        return list(nemesis.kinds(text, servers=servers, transfers=transfers, sandbox_obstacle=obstacle))

    assert names("none") == []
    assert names("isolate+kill") == ["isolate", "kill"]
    assert "ring" in names("all", servers=5) and "ring" not in names("all")
    without = names("all", transfers=False, obstacle="not installed: ip")
    assert "kill" in without and not {"isolate", "disk", "transfer"} & set(without)
    with pytest.raises(nemesis.Unfit, match="isolate: not installed: ip"):
        names("isolate", obstacle="not installed: ip")
    with pytest.raises(nemesis.Unfit, match="ring: it needs 5 servers"):
        names("kill+ring")
    with pytest.raises(nemesis.Unfit, match="there is no nemesis kil; there are none, all, kill"):
        names("kil")
