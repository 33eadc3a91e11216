"""What one proxy should have, as it changes: the read of what it needs, its leaf, and what is compiled of the two.

    async with aclosing(feed.resources(proxy_id, may)) as found:
        async for resources in found: ...

Nothing comes before there are roots and a leaf. What is the same as before is not given again, so that a change that is
none of the proxy's costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Any

import msgspec

from lictor.agent.leaves_book import Leaf
from lictor.agent.logs import logger
from lictor.connect_proxy.envoy.assembling import assemble, with_leaf
from lictor.connect_proxy.envoy.compiling import Resources, compile_proxy, recompile
from lictor.connect_proxy.envoy.snapshot import ProxySnapshot
from lictor.connect_proxy.envoy.source import AgentSource
from lictor.model.errors import LictorError
from lictor.store.store import View

log = logger("agent.envoy")


class Gone(LictorError):
    """The proxy is registered no more."""


class Feed:
    """One proxy's; made for each stream."""

    def __init__(self, source: AgentSource, proxy_id: str, may: Callable[[str], None], token: str = "") -> None:
        """`may` raises where whoever asks may not have what is a service's, by its name; `token` is who that is."""
        self._source = source
        self._proxy_id = proxy_id
        self._may = may
        self._token = token
        self._snapshot: ProxySnapshot | None = None
        self._leaf: Leaf | None = None
        self._service = ""
        self._seen = False
        self._changed = asyncio.Event()
        self._leaf_task: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None

    async def resources(self) -> AsyncGenerator[Resources, None]:
        """See above; while nothing can be made of what the proxy needs, what was made last stands. Raises `Gone` once
        the proxy is no more, and what `may` raises.
        """
        reading = asyncio.get_running_loop().create_task(self._guarded(self._read()))
        problems: tuple[str, ...] = ()
        last: tuple[ProxySnapshot, Resources] | None = None
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if self._failure is not None:
                    raise self._failure
                snapshot, leaf = self._snapshot, self._leaf
                if snapshot is None or leaf is None:
                    continue
                whole = with_leaf(snapshot, leaf.certificate, leaf.key)
                try:
                    made = compile_proxy(whole) if last is None else recompile(whole, *last)
                except (ValueError, TypeError) as error:
                    # A number that no port has, text that no name has: whatever else Envoy's messages do not take.
                    log.error("a proxy's configuration cannot be made", proxy=self._proxy_id, error=str(error))
                    continue
                for problem in made.problems:
                    if problem not in problems:
                        log.warn("part of a proxy's configuration cannot be used", proxy=self._proxy_id, error=problem)
                problems, last = made.problems, (whole, made)
                yield made
        finally:
            tasks = [task for task in (reading, self._leaf_task) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._source.release_elsewhere(self)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self._failure = error
            self._changed.set()

    async def _read(self) -> None:
        source, proxy_id = self._source, self._proxy_id

        def needs(view: View) -> ProxySnapshot | None:
            checks = source.exposed(view, proxy_id)
            own = partial(source.registration, proxy_id=proxy_id)
            return assemble(view, proxy_id, own, source.place, checks, source.elsewhere)

        async with aclosing(source.follow(needs)) as answers:
            async for answer in answers:
                await self._take(answer.value)

    async def _take(self, snapshot: ProxySnapshot | None) -> None:
        if snapshot is None:
            if self._seen:
                raise Gone(f"{self._proxy_id} is registered here no more")
            log.debug("nothing is known yet of what a proxy needs", proxy=self._proxy_id)
            return
        self._seen = True
        self._may(snapshot.service)
        if not snapshot.roots:
            return  # nothing can be verified: what Envoy has stands
        if snapshot.service != self._service:
            self._service = snapshot.service
            await self._follow_leaf()
        targets = [needs.target for needs in snapshot.upstreams]
        far = {(one.datacenter, one.service) for one in targets if one.datacenter != snapshot.datacenter}
        if await self._source.hold_elsewhere(self, far):
            return
        self._snapshot = msgspec.structs.replace(snapshot, token=self._token)
        self._changed.set()

    async def _follow_leaf(self) -> None:
        if self._leaf_task is not None:
            self._leaf_task.cancel()
            await asyncio.gather(self._leaf_task, return_exceptions=True)
        self._leaf = None
        self._leaf_task = asyncio.get_running_loop().create_task(self._guarded(self._read_leaf(self._service)))

    async def _read_leaf(self, service: str) -> None:
        async with aclosing(self._source.leaf(service)) as leaves:
            async for leaf in leaves:
                self._leaf = leaf
                self._changed.set()
