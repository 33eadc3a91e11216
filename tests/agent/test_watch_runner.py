"""The agent's watches against an HTTP server, with real handlers: when they run, one at a time, and how they end."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from lictor.agent.watch import WatchPlan, parse_agent_watch
from lictor.agent.watch_runner import WatchRunner
from tests.patience import soon


class Registry:
    """An HTTP server with the blocking queries of one key, and a door for http handlers. Ports are its own."""

    def __init__(self) -> None:
        self.index = 10
        self.value = "one"
        self.failing = False
        self.asked = 0
        self.tokens: list[str] = []
        self.received: list[tuple[str, dict[str, str], Any]] = []
        self.changed = asyncio.Event()
        self.address = ""

    async def key(self, request: web.Request) -> web.Response:
        """GET /v1/kv/..."""
        self.asked += 1
        self.tokens.append(request.headers.get("X-Consul-Token", ""))
        if self.failing:
            return web.Response(status=500, text="No cluster leader")
        while int(request.query.get("index", 0)) == self.index:
            await self.changed.wait()
        entry = [{"Key": "a", "Value": self.value}]
        return web.json_response(entry, headers={"X-Consul-Index": str(self.index)})

    async def hook(self, request: web.Request) -> web.Response:
        """Any method on /hook."""
        self.received.append((request.method, dict(request.headers), await request.json()))
        return web.Response(text="thanks")

    def change(self, value: str, index: int | None = None) -> None:
        """Set the key, and wake the blocking queries."""
        self.value = value
        self.index = self.index + 1 if index is None else index
        self.changed.set()
        self.changed = asyncio.Event()


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    state = Registry()
    app = web.Application()
    app.router.add_get("/v1/kv/{key:.*}", state.key)
    app.router.add_route("*", "/hook", state.hook)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    state.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield state
    state.change("end")
    await runner.cleanup()


@pytest.fixture
async def watches(registry: Registry) -> AsyncIterator[WatchRunner]:
    runner = WatchRunner(registry.address, token="default")
    yield runner
    await runner.close()


async def until(condition: Callable[[], bool]) -> None:
    await soon(condition, "what the test waits for")


def script(code: str, *args: str, **more: Any) -> WatchPlan:
    return parse_agent_watch({"type": "key", "key": "a", "args": [sys.executable, "-c", code, *args], **more})


RECORD = "import os,sys; open(sys.argv[1], 'a').write(os.environ['CONSUL_INDEX'] + ' ' + sys.stdin.read())"


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def test_a_script_gets_each_change_with_its_index(
    registry: Registry, watches: WatchRunner, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    await watches.start([script(RECORD, str(out), token="own")])
    await until(lambda: len(lines(out)) == 1)
    registry.change("two")
    await until(lambda: len(lines(out)) == 2)
    registry.change("two")
    registry.change("three")
    await until(lambda: len(lines(out)) == 3)
    assert [(line.split()[0], json.loads(line.split(" ", 1)[1])["Value"]) for line in lines(out)] == [
        ("10", "one"),
        ("11", "two"),
        ("13", "three"),
    ]
    assert set(registry.tokens) == {"own"}


async def test_an_http_handler_gets_each_change(registry: Registry, watches: WatchRunner) -> None:
    config = {"path": f"{registry.address}/hook", "method": "PUT", "header": {"X-Mine": ["a"]}}
    plan = parse_agent_watch({"type": "key", "key": "a", "handler_type": "http", "http_handler_config": config})
    await watches.start([plan])
    await until(lambda: len(registry.received) == 1)
    registry.change("two")
    await until(lambda: len(registry.received) == 2)
    method, headers, body = registry.received[1]
    assert (method, headers["X-Mine"], headers["X-Consul-Index"], body["Value"]) == ("PUT", "a", "11", "two")
    assert headers["Content-Type"] == "application/json"
    assert set(registry.tokens) == {"default"}


async def test_handlers_of_one_watch_never_overlap(registry: Registry, watches: WatchRunner, tmp_path: Path) -> None:
    code = (
        "import os,sys,time; p=sys.argv[1]+'/busy'; os.close(os.open(p, os.O_CREAT|os.O_EXCL)); time.sleep(0.05);"
        "os.unlink(p); open(sys.argv[1]+'/out','a').write('ok\\n')"
    )
    await watches.start([script(code, str(tmp_path))])
    changes = 0

    def run_thrice() -> bool:
        nonlocal changes
        registry.change(str(changes))
        changes += 1
        return len(lines(tmp_path / "out")) >= 3

    await until(run_thrice)


async def test_a_failing_handler_or_agent_does_not_end_the_watch(
    registry: Registry, watches: WatchRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lictor.agent.watch.RETRY_SECONDS", 0.01)
    out = tmp_path / "out"
    missing = parse_agent_watch({"type": "key", "key": "a", "args": ["/nonexistent/program"]})
    await watches.start([script(RECORD + "; sys.exit(3)", str(out)), missing])
    await until(lambda: len(lines(out)) == 1)
    registry.failing = True
    registry.change("lost")
    asked = registry.asked
    await until(lambda: registry.asked > asked + 3)
    registry.failing = False
    await until(lambda: len(lines(out)) == 2)


async def test_an_index_that_goes_backwards_is_followed(
    registry: Registry, watches: WatchRunner, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    await watches.start([script(RECORD, str(out))])
    await until(lambda: len(lines(out)) == 1)
    registry.change("restored", index=2)
    await until(lambda: len(lines(out)) == 2)
    registry.change("next", index=3)
    await until(lambda: len(lines(out)) == 3)


async def test_a_reload_keeps_what_stayed_and_ends_what_is_gone(
    registry: Registry, watches: WatchRunner, tmp_path: Path
) -> None:
    stays, goes, comes = (script(RECORD, str(tmp_path / name)) for name in ("stays", "goes", "comes"))
    await watches.start([stays, goes])
    await until(lambda: len(lines(tmp_path / "stays")) + len(lines(tmp_path / "goes")) == 2)
    await watches.reload([comes, stays])
    await until(lambda: len(lines(tmp_path / "comes")) == 1)
    registry.change("two")
    await until(lambda: len(lines(tmp_path / "stays")) == 2 and len(lines(tmp_path / "comes")) == 2)
    assert len(lines(tmp_path / "goes")) == 1


async def test_closing_ends_a_running_handler_and_what_it_started(
    registry: Registry, watches: WatchRunner, tmp_path: Path
) -> None:
    out = tmp_path / "pids"
    code = (
        "import os,subprocess,sys; c=subprocess.Popen(['sleep','600']);"
        "open(sys.argv[1],'w').write(f'{os.getpid()} {c.pid}\\n'); c.wait()"
    )
    await watches.start([script(code, str(out))])
    await until(lambda: len(lines(out)) == 1 and lines(out)[0].count(" ") == 1)
    await watches.close()
    pids = [int(pid) for pid in lines(out)[0].split()]
    await until(lambda: not any(_runs(pid) for pid in pids))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


async def test_a_handler_that_reads_nothing_and_prints_much_is_fine(
    registry: Registry, watches: WatchRunner, tmp_path: Path
) -> None:
    registry.value = "x" * 1_000_000
    code = "import sys; sys.stdin.close(); print('y' * 300000); open(sys.argv[1],'a').write('done\\n')"
    await watches.start([script(code, str(tmp_path / "out"))])
    await until(lambda: len(lines(tmp_path / "out")) == 1)
    registry.change("small")
    await until(lambda: len(lines(tmp_path / "out")) == 2)
