"""The log's lines, levels, files and readers."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lictor.agent.log_stream import LogReader
from lictor.agent.logs import HIDDEN, TRACE, LogConfig, LogError, LogSystem, log_path, logger, read_level
from tests.patience import PATIENCE

log = logger("agent.http")


@contextmanager
def logging_to(config: LogConfig) -> Iterator[tuple[LogSystem, io.StringIO]]:
    stream = io.StringIO()
    system = LogSystem(config, stream)
    try:
        yield system, stream
    finally:
        system.close()


def test_a_text_line_has_time_level_module_message_and_fields() -> None:
    with logging_to(LogConfig()) as (_, stream):
        log.info("Request finished", method="GET", url="/v1/x", quoted='a "b"', empty="", number=3, yes=True)
        log.warn("plain")
    first, second = stream.getvalue().splitlines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \[INFO\]  agent\.http: Request finished: "
        r'method=GET url=/v1/x quoted="a \\"b\\"" empty= number=3 yes=true',
        first,
    )
    assert second.endswith(" [WARN]  agent.http: plain")


def test_a_value_cannot_forge_a_line() -> None:
    with logging_to(LogConfig()) as (_, stream):
        log.error("bad\nmessage \x1b[31m", value="x\n2026-01-01T00:00:00.000Z [INFO]  agent: forged")
    assert len(stream.getvalue().splitlines()) == 1
    assert "bad\\nmessage \\x1b[31m:" in stream.getvalue()


def test_a_json_line_has_the_keys_of_hclog() -> None:
    with logging_to(LogConfig(json=True)) as (_, stream):
        log.info("Synced service", service="web", count=2)
    line = json.loads(stream.getvalue())
    assert list(line) == ["@level", "@message", "@module", "@timestamp", "count", "service"]
    assert (line["@level"], line["@message"], line["@module"]) == ("info", "Synced service", "agent.http")
    assert line["count"] == 2
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["@timestamp"])


@pytest.mark.parametrize("as_json", [False, True])
def test_tokens_do_not_reach_the_log(as_json: bool) -> None:
    with logging_to(LogConfig(json=as_json)) as (_, stream):
        log.info("GET /v1/kv/a?dc=x&token=s3cret&raw", url="/v1/agent/self?token=s3cret", token="s3cret")
        log.info("headers", headers="{'X-Consul-Token': 's3cret', 'Accept': '*/*'}")
        log.info("bearer", header="Authorization: Bearer s3cret")
    assert "s3cret" not in stream.getvalue()
    assert stream.getvalue().count(HIDDEN) == 5
    assert "*/*" in stream.getvalue()


def test_an_exception_is_told_in_the_same_line() -> None:
    with logging_to(LogConfig()) as (_, stream):
        try:
            raise RuntimeError("boom")
        except RuntimeError as error:
            log.error("Unexpected", exc_info=error)
    assert "boom" in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 1


def test_levels_and_their_change_by_reload() -> None:
    with logging_to(LogConfig(level="warn")) as (system, stream):
        log.info("no")
        assert not log.enabled(logging.INFO)
        system.set_level("TRACE")
        log.trace("yes")
        with pytest.raises(
            LogError, match=r"^Invalid log level: foo\. Valid log levels are: \[TRACE DEBUG INFO WARN ERR ERROR\]$"
        ):
            system.set_level("foo")
        assert log.enabled(TRACE)
        system.set_level("err")
        log.warn("no")
    assert re.findall(r"\[\w+\] .*", stream.getvalue()) == ["[TRACE] agent.http: yes"]


def test_where_nobody_reads_the_log_any_more_nothing_is_said_and_other_destinations_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    path = tmp_path / "agent.log"
    with open(writing, "w", encoding="utf-8", buffering=1) as gone:
        system = LogSystem(LogConfig(file=str(path)), gone)
        try:
            logger("agent").info("a line")
        finally:
            system.close()
            os.dup2(os.open(os.devnull, os.O_WRONLY), writing)  # what is left over goes nowhere when it is closed
    assert "a line" in path.read_text()
    assert capsys.readouterr().err == ""


def test_other_libraries_warnings_are_in_the_log_too() -> None:
    with logging_to(LogConfig(level="debug")) as (_, stream):
        logging.getLogger("asyncio").warning("slow %s", "callback")
        logging.getLogger("asyncio").info("no")
    assert stream.getvalue().endswith("[WARN]  asyncio: slow callback\n")


def test_the_file_rotates_by_size_and_keeps_the_newest(tmp_path: Path) -> None:
    with logging_to(LogConfig(file=str(tmp_path / "agent"), rotate_bytes=200, max_files=2)):
        for number in range(20):
            log.info("a line of some length", number=number)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 3
    assert "agent.log" in names
    assert all(re.fullmatch(r"agent(-\d+)?\.log", name) for name in names)
    kept = "".join((tmp_path / name).read_text() for name in (*names[:2], "agent.log"))
    assert "number=19" in kept
    assert "number=0\n" not in kept
    assert (tmp_path / "agent.log").stat().st_mode & 0o007 == 0


def test_the_file_rotates_by_age_and_minus_one_keeps_nothing_old(tmp_path: Path) -> None:
    with logging_to(LogConfig(file=str(tmp_path) + "/", rotate_seconds=1e-9, max_files=-1)):
        for number in range(3):
            log.info("line", number=number)
    assert [path.name for path in tmp_path.iterdir()] == ["lictor.log"]
    assert (tmp_path / "lictor.log").read_text().count("\n") == 1


def test_the_names_of_log_files(tmp_path: Path) -> None:
    assert log_path("/var/log/x") == Path("/var/log/x.log")
    assert log_path("/var/log/x.txt") == Path("/var/log/x.txt")
    assert log_path(str(tmp_path)) == tmp_path / "lictor.log"


def test_a_log_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match="Unable to create the log file"):
        LogSystem(LogConfig(file=str(tmp_path / "file" / "x.log")))
    with pytest.raises(LogError, match="unknown facility 'NOPE'"):
        LogSystem(LogConfig(syslog=True, syslog_facility="NOPE"))
    with pytest.raises(LogError):
        read_level("verbose")


@pytest.mark.skipif(os.path.exists("/dev/log"), reason="this machine's own syslog would get the line")
def test_syslog_absent_is_an_error_with_the_remedy() -> None:
    with pytest.raises(LogError, match="enable_syslog = false"):
        LogSystem(LogConfig(syslog=True))


def test_a_reader_gets_its_own_level_and_format() -> None:
    async def read() -> list[bytes]:
        with logging_to(LogConfig(level="err")) as (system, stream):
            log.debug("before the reader came")
            async with LogReader(system, logging.DEBUG, json=True) as reader:
                log.debug("one", a=1)
                log.trace("no")
                chunks = [await anext(reader)]
                asyncio.get_running_loop().call_soon(lambda: log.info("two"))
                chunks.append(await asyncio.wait_for(anext(reader), PATIENCE))
            assert stream.getvalue() == ""
            assert not log.enabled(logging.DEBUG)
            return chunks

    first, second = asyncio.run(read())
    assert json.loads(first)["@message"] == "one"
    assert json.loads(second)["@message"] == "two"


def test_a_slow_reader_loses_lines_and_is_told_how_many() -> None:
    async def read() -> list[str]:
        with logging_to(LogConfig()) as (system, _):
            async with LogReader(system, logging.INFO, json=False, buffered=3) as reader:
                for number in range(10):
                    log.info("line", number=number)
                return (await anext(reader)).decode().splitlines()

    lines = asyncio.run(read())
    assert len(lines) == 4
    assert lines[2].endswith("number=2")
    assert lines[3].endswith("Dropped log lines: the reader is too slow: dropped=7")


def test_a_closed_reader_ends() -> None:
    async def read() -> list[bytes]:
        with logging_to(LogConfig()) as (system, _):
            async with LogReader(system, logging.INFO, json=False) as reader:
                log.info("last")
                asyncio.get_running_loop().call_later(0.01, reader.close)
                return [chunk async for chunk in reader]

    assert len(asyncio.run(read())) == 1


def test_lines_reach_a_syslog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        server.settimeout(PATIENCE)
        monkeypatch.setattr("lictor.agent.logs.SYSLOG_ADDRESSES", (path,))
        with logging_to(LogConfig(syslog=True, syslog_facility="local3")):
            log.warn("hello", a=1)
        assert re.match(rb"<156>lictor: .*agent\.http: hello: a=1", server.recv(1000))
