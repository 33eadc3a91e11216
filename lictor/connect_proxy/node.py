"""Which sidecars a process serves: one that is given, one that is registered, or all of a node that ask for it."""

from collections.abc import Iterable
from typing import Protocol

from lictor.connect_proxy.records import ProxyService
from lictor.connect_proxy.settings import Problems, SidecarSettings, sidecar_settings
from lictor.connect_proxy.sidecar import Sidecar, World
from lictor.model.service import BUILTIN, CONNECT_PROXY


class Served(Protocol):
    """What a process serves."""

    @property
    def sidecars(self) -> list[Sidecar]:
        """Those that there are now."""
        ...

    @property
    def ready(self) -> bool:
        """Whether all of them serve."""
        ...


class Given:
    """A sidecar that the command line describes."""

    def __init__(self, world: World, settings: SidecarSettings, *, report: bool = False) -> None:
        self.sidecars = [Sidecar(world, settings, report=report)]

    @property
    def ready(self) -> bool:
        return self.sidecars[0].ready


class Many:
    """Sidecars that are registered with the agent: they come, change and go with their registrations."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.by_id: dict[str, Sidecar] = {}
        self._told: dict[str, tuple[str, ...]] = {}

    @property
    def sidecars(self) -> list[Sidecar]:
        return list(self.by_id.values())

    def settle(self, services: Iterable[ProxyService]) -> None:
        """Serve these, and no others."""
        wanted = {service.id: self._settings(service) for service in services}
        for proxy_id in [proxy_id for proxy_id in self.by_id if proxy_id not in wanted]:
            self.world.log.info("A sidecar is not registered any more", proxy=proxy_id)
            self._told.pop(proxy_id, None)
            self.world.background(self.by_id.pop(proxy_id).drain())
        for proxy_id, settings in wanted.items():
            sidecar = self.by_id.get(proxy_id)
            if sidecar is not None and sidecar.settings.service != settings.service:
                self.by_id.pop(proxy_id).hand_on()
                sidecar = None
            if sidecar is None:
                self.by_id[proxy_id] = Sidecar(self.world, settings)
            else:
                sidecar.update(settings)

    def _settings(self, service: ProxyService) -> SidecarSettings:
        problems = Problems()
        settings = sidecar_settings(service, problems)
        found = tuple(problems.found)
        if found and self._told.get(service.id) != found:
            for problem in found:
                self.world.log.warn("A setting is passed over", proxy=service.id, problem=problem)
        self._told[service.id] = found
        return settings


class Registered(Many):
    """One sidecar, by its id. One that is not registered any more is served on: the agent may be about to restart."""

    def __init__(self, world: World, proxy_id: str) -> None:
        super().__init__(world)
        self._watch = world.source.service(proxy_id, self, self._changed)
        self._proxy_id = proxy_id

    @property
    def ready(self) -> bool:
        return bool(self.by_id) and all(sidecar.ready for sidecar in self.sidecars)

    def _changed(self) -> None:
        service = self._watch.value
        if self._watch.gone or service is None:
            self.world.log.warn("The proxy is not registered with the agent", proxy=self._proxy_id)
        elif service.kind != CONNECT_PROXY or service.proxy is None or not service.proxy.destination_service_name:
            self.world.log.error("The service is no proxy of the mesh", proxy=self._proxy_id, kind=service.kind)
        else:
            self.settle([service])


class Node(Many):
    """Every sidecar of the agent whose proxy block says `"Launch": "builtin"`; with `undeclared` also those whose block
    does not say who starts them.
    """

    def __init__(self, world: World, *, undeclared: bool) -> None:
        super().__init__(world)
        self._kinds = (BUILTIN, "") if undeclared else (BUILTIN,)
        self._watch = world.source.services(self, self._changed)

    @property
    def ready(self) -> bool:
        return self._watch.value is not None and all(sidecar.ready for sidecar in self.sidecars)

    def _changed(self) -> None:
        services = self._watch.value
        if services is not None:
            self.settle(service for service in services.values() if self._is_ours(service))

    def _is_ours(self, service: ProxyService) -> bool:
        block = service.proxy
        if service.kind != CONNECT_PROXY or block is None or not block.destination_service_name:
            return False
        return block.launch in self._kinds
