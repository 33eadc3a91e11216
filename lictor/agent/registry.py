"""What is registered with this agent: services and checks put, removed and put into maintenance, on disk and in memory.

One change is made at a time: it is judged whole, written to disk, then made in the local state and the check runner,
so that what is refused changes nothing and what was answered is there after a crash. What the configuration files
define is not written: the files have it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable

import msgspec

from lictor.agent.checks.alias import AliasedCheck, RemoteHealth
from lictor.agent.checks.build import CheckSettings, build
from lictor.agent.checks.connection import TlsSettings
from lictor.agent.checks.result import Result
from lictor.agent.checks.runner import CheckRunner
from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.launching import asked_for, can_be_asked_about, launch_settings
from lictor.agent.local import LocalState
from lictor.agent.logs import logger
from lictor.agent.persistence import AgentFiles
from lictor.agent.registration import (
    CheckRegistration,
    ServiceRegistration,
    check_registration,
    service_registrations,
)
from lictor.model.check import CRITICAL, NODE_MAINTENANCE, PASSING, SERVICE_MAINTENANCE_PREFIX, Check
from lictor.model.errors import InvalidRequest, LictorError, NotFound, Refused
from lictor.model.service import CONNECT_PROXY, NO_LAUNCH, NodeService
from lictor.model.service_definition import CheckDefinition, ServiceDefinition

log = logger("agent")

_REASON = "Maintenance mode is enabled for this {}, but no reason was provided. This is a default message."

Job = Callable[[], None]


def aliased(check: Check) -> AliasedCheck:
    """A check as aliases see it."""
    return AliasedCheck(check.check_id, check.name, check.service_id, check.status, check.output)


def stands_for(service: NodeService) -> tuple[str, ...]:
    """The names, in lower case, of the services that an instance is one of, or a proxy for."""
    own = service.service.lower()
    return (own, service.proxy.destination_service_name.lower()) if service.kind == CONNECT_PROXY else (own,)


class _LocalHealth:
    """The node's own checks, as aliases see them."""

    def __init__(self, local: LocalState) -> None:
        self._local = local

    def checks_of(self, service_id: str) -> Iterable[AliasedCheck]:
        return [aliased(c) for c in self._local.checks_of(service_id)]

    def has_service(self, service_id: str) -> bool:
        return self._local.service(service_id) is not None


def check_settings(config: RuntimeConfig) -> CheckSettings:
    """What the configuration says about all checks."""
    tls = TlsSettings()
    if config.enable_agent_tls_for_checks:
        own, common = config.tls.internal_rpc, config.tls.defaults
        tls = TlsSettings(
            ca_file=own.ca_file or common.ca_file,
            ca_path=own.ca_path or common.ca_path,
            cert_file=own.cert_file or common.cert_file,
            key_file=own.key_file or common.key_file,
        )
    return CheckSettings(
        check_update_interval=config.check_update_interval,
        check_output_max_size=config.check_output_max_size,
        discard_check_output=config.discard_check_output,
        tls=tls,
    )


class Registry:
    """The services and checks of one agent. `trigger` says that the catalog has something to learn. Must be made on the
    running loop."""

    def __init__(
        self,
        config: Callable[[], RuntimeConfig],
        local: LocalState,
        files: AgentFiles,
        remote: RemoteHealth,
        trigger: Callable[[], None],
    ) -> None:
        self._config = config
        self._local = local
        self._files = files
        self._trigger = trigger
        self._changing = asyncio.Lock()
        self.on_services: Callable[[set[str], list[NodeService]], None] | None = None
        """Called once instances were registered or deregistered, with the names of the services that they stand for,
        and with the instances that went."""
        self._named: set[str] = set()  # those of which it is still to be said
        self._dropped: list[NodeService] = []  # likewise
        self._reaping: set[asyncio.Task[None]] = set()
        # Services and checks that the configuration files define.
        self._from_files: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
        self.runner = CheckRunner(
            random.Random(),
            notify=self._notify,
            shown=self._show,
            deregister=self._reap,
            local=_LocalHealth(local),
            remote=remote,
            settings=check_settings(config()),
        )

    async def close(self) -> None:
        """Stop every check."""
        for task in list(self._reaping):
            task.cancel()
        await asyncio.gather(*self._reaping, return_exceptions=True)
        await self.runner.close()

    # -- services -----------------------------------------------------------------------------------------------------

    async def register_service(self, definition: ServiceDefinition, *, replace_checks: bool = False) -> None:
        """Register a service, its checks and its sidecar, replacing one of the same id.

        With `replace_checks`, checks of it that the definition does not name are removed. Raises `InvalidRequest`,
        `Refused`, `LictorError`.
        """
        async with self._changing:
            planned = self._plan(definition)
            self._admit(planned, remote=True)
            stale = self._unnamed_checks(planned) if replace_checks else []
            jobs: list[Job] = []
            for registration in planned:
                jobs.append(_job(self._files.save_service, registration))
                jobs += [_job(self._files.save_check, check) for check in registration.checks]
            jobs += [_job(self._files.forget_check, check_id) for check_id in stale]
            await self._on_disk(jobs)
            for registration in planned:
                self._put_service(registration)
            for check_id in stale:
                self._drop_check(check_id)
            self._tell_services()

    def _plan(self, definition: ServiceDefinition, reserved: Iterable[int] = ()) -> list[ServiceRegistration]:
        """The instance that a definition describes, then its sidecar, which gets none of the `reserved` ports.

        Raises `InvalidRequest`.
        """
        service_id = definition.service_id
        sidecars = self._local.sidecars_of(service_id)
        own = {service_id, *sidecars}
        taken = {*reserved, *(s.port for s in self._local.services.values() if s.id not in own)}
        ports = self._sidecar_ports
        # A sidecar that is registered again keeps its port.
        kept = (self._local.service(i) for i in sidecars)
        first = next((s.port for s in kept if s is not None and s.port in ports and s.port not in taken), None)
        if first is not None:
            taken |= set(ports) - {first}
        return service_registrations(definition, self._config().node_name, ports, taken)

    @property
    def _sidecar_ports(self) -> range:
        ports = self._config().ports
        if ports.sidecar_min_port <= 0 or ports.sidecar_max_port <= 0:
            return range(0)
        return range(ports.sidecar_min_port, ports.sidecar_max_port + 1)

    def _admit(self, planned: Iterable[ServiceRegistration], *, remote: bool) -> None:
        for registration in planned:
            self._admit_launch(registration.service)
            for check in registration.checks:
                self._admit_check(check.definition, remote=remote)

    def _admit_launch(self, service: NodeService) -> None:
        """Refuse a proxy that is to be launched where the agent launches none, or cannot be asked about it."""
        launch, settings = service.proxy.launch, self._config().connect
        if asked_for(service, launch_settings(settings.launch)) and not can_be_asked_about(service.id):
            raise InvalidRequest(
                f"a proxy with the ID {service.id!r} cannot be started: its agent could not be asked about it; give "
                'the service another ID, or the proxy Launch = "none"'
            )
        if launch in ("", NO_LAUNCH) or (settings.enabled and settings.launch.enabled):
            return
        raise Refused(
            f'Proxy.Launch = "{launch}": this agent starts no proxies; to enable, configure '
            f"'connect.launch.enabled' to true, or start it yourself: lictor connect proxy -proxy-id {service.id}"
        )

    def _admit_check(self, definition: CheckDefinition, *, remote: bool) -> None:
        """Refuse a check that cannot be made, and a script where scripts are not enabled for its origin."""
        build(definition, check_settings(self._config()))
        if not definition.is_script:
            return
        config = self._config()
        if remote and not config.enable_script_checks:
            raise Refused(
                "Scripts are disabled on this agent from remote calls; "
                "to enable, configure 'enable_script_checks' to true"
            )
        if not config.enable_script_checks and not config.enable_local_script_checks:
            raise Refused(
                "Scripts are disabled on this agent; to enable, configure "
                "'enable_script_checks' or 'enable_local_script_checks' to true"
            )

    def _unnamed_checks(self, planned: Iterable[ServiceRegistration]) -> list[str]:
        found = []
        for registration in planned:
            wanted = {c.check.check_id for c in registration.checks}
            for check in self._local.checks_of(registration.service.id):
                kept = check.check_id in wanted or check.check_id.startswith(SERVICE_MAINTENANCE_PREFIX)
                if not kept:
                    found.append(check.check_id)
        return found

    def _tell_services(self) -> None:
        """What is registered is whole again: say which services were changed."""
        named, self._named = self._named, set()
        dropped, self._dropped = self._dropped, []
        if self.on_services is not None and named:
            self.on_services(named, dropped)

    def _put_service(self, registration: ServiceRegistration) -> None:
        before = self._local.service(registration.service.id)
        self._named.update(stands_for(registration.service), stands_for(before) if before is not None else ())
        self._local.put_service(registration)
        for check in registration.checks:
            self._put_check(check)
        self.runner.local_changed(registration.service.id)

    async def deregister_service(self, service_id: str) -> None:
        """Remove a service, its checks and its sidecars. Raises `NotFound`, `LictorError`."""
        if not service_id:
            raise Refused("ServiceID missing")
        async with self._changing:
            self._known_service(service_id)
            await self._remove_services([*self._local.sidecars_of(service_id), service_id])
            self._tell_services()

    def _known_service(self, service_id: str) -> NodeService:
        service = self._local.service(service_id)
        if service is None:
            raise NotFound(
                f'Unknown service ID "{service_id}". Ensure that the service ID is passed, not the service name.'
            )
        return service

    async def _remove_services(self, service_ids: list[str]) -> None:
        jobs: list[Job] = []
        for service_id in service_ids:
            if self._local.service(service_id) is not None:
                jobs += [_job(self._files.forget_check, c.check_id) for c in self._local.checks_of(service_id)]
                jobs.append(_job(self._files.forget_service, service_id))
        await self._on_disk(jobs)
        for service_id in service_ids:
            self._drop_service(service_id)

    def _drop_service(self, service_id: str) -> None:
        service = self._local.service(service_id)
        if service is not None:
            self._named.update(stands_for(service))
            self._dropped.append(service)
        for check in self._local.checks_of(service_id):
            self._drop_check(check.check_id)
        if self._local.remove_service(service_id):
            self.runner.local_changed(service_id)

    # -- checks -------------------------------------------------------------------------------------------------------

    async def register_check(self, definition: CheckDefinition) -> None:
        """Register a check of the node or of a service here.

        Raises `InvalidRequest`, `NotFound`, `Refused`, `LictorError`.
        """
        async with self._changing:
            registration = self._plan_check(definition)
            self._admit_check(definition, remote=True)
            await self._on_disk([_job(self._files.save_check, registration)])
            self._put_check(registration)

    def _plan_check(self, definition: CheckDefinition) -> CheckRegistration:
        service: NodeService | None = None
        if definition.service_id:
            service = self._local.service(definition.service_id)
            if service is None:
                raise NotFound(f'ServiceID "{definition.service_id}" does not exist')
        named = msgspec.structs.replace(definition, id=definition.id or definition.name)
        registration = check_registration(named, self._config().node_name, service)
        token = definition.token or (self._local.service_token(service.id) if service is not None else "")
        return msgspec.structs.replace(registration, token=token)

    def _put_check(self, registration: CheckRegistration) -> None:
        check, definition = registration.check, registration.definition
        known = self._local.check(check.check_id)
        redefined = known is not None and self.runner.definition(check.check_id) != definition
        if known is not None:
            check = msgspec.structs.replace(check, exposed_port=known.exposed_port)
        if definition.kind:
            self.runner.update(check.check_id, definition)
            result = self.runner.result(check.check_id)
            check = msgspec.structs.replace(check, status=result.status, output=result.output)
        elif known is not None and not definition.status:
            check = msgspec.structs.replace(check, status=known.status, output=known.output)
        self._local.put_check(msgspec.structs.replace(registration, check=check))
        if redefined:
            self._local.check_redefined(check.check_id)
        self.runner.local_changed(check.service_id)

    async def deregister_check(self, check_id: str) -> None:
        """Remove a check. Raises `NotFound`, `LictorError`."""
        if not check_id:
            raise Refused("CheckID missing")
        async with self._changing:
            self._known_check(check_id)
            await self._remove_check(check_id)

    def _known_check(self, check_id: str) -> None:
        if self._local.check(check_id) is None:
            raise NotFound(f'Unknown check ID "{check_id}". Ensure that the check ID is passed, not the check name.')

    async def _remove_check(self, check_id: str) -> None:
        if self._local.check(check_id) is not None:
            await self._on_disk([_job(self._files.forget_check, check_id)])
            self._drop_check(check_id)

    def _drop_check(self, check_id: str) -> None:
        check = self._local.check(check_id)
        self.runner.remove(check_id)
        if check is not None:
            self._local.remove_check(check_id)
            self.runner.local_changed(check.service_id)

    def update_ttl(self, check_id: str, status: str, output: str) -> None:
        """Somebody reports for a TTL check. Raises `NotFound`, `Refused`, `InvalidRequest`, and `LictorError` where the
        state counts, and cannot be kept on disk.
        """
        self._known_check(check_id)
        state = self.runner.ttl_update(check_id, status, output)
        try:
            self._files.save_ttl(state)
        except OSError as error:
            raise LictorError(f'failed persisting state for check "{check_id}": {_words(error)}') from None

    def _notify(self, check_id: str, status: str, output: str) -> None:
        before = self._local.check(check_id)
        if before is not None and before.status != status:
            tell = log.info if status == PASSING else log.warn
            tell(f"Check is now {status}", check=check_id, service=before.service_id)
        if self._local.update_check(check_id, status, output):
            self._trigger()

    def _show(self, check_id: str, status: str, output: str) -> None:
        if self._local.update_check(check_id, status, output, worth_sending=False):
            self._trigger()

    def _reap(self, check_id: str, service_id: str) -> None:
        task = asyncio.get_running_loop().create_task(self._reap_service(check_id, service_id))
        self._reaping.add(task)
        task.add_done_callback(self._reaping.discard)

    async def _reap_service(self, check_id: str, service_id: str) -> None:
        if self._local.service(service_id) is None:
            return
        log.info("deregistering a service that was critical for too long", service=service_id, check=check_id)
        try:
            await self.deregister_service(service_id)
        except (OSError, LictorError) as error:
            log.error("could not deregister a service", service=service_id, error=str(error))
            return
        self._trigger()

    # -- maintenance --------------------------------------------------------------------------------------------------

    async def set_node_maintenance(self, reason: str | None) -> None:
        """Put the node into maintenance, with a reason (empty for the default text), or with None out of it."""
        async with self._changing:
            if reason is None:
                await self._remove_check(NODE_MAINTENANCE)
            elif self._local.check(NODE_MAINTENANCE) is None:
                await self._maintain(NODE_MAINTENANCE, "Node", reason, None)

    async def set_service_maintenance(self, service_id: str, reason: str | None) -> None:
        """Put a service into maintenance or, with None, out of it. Raises `NotFound`."""
        async with self._changing:
            service = self._known_service(service_id)
            check_id = SERVICE_MAINTENANCE_PREFIX + service_id
            if reason is None:
                await self._remove_check(check_id)
            elif self._local.check(check_id) is None:
                await self._maintain(check_id, "Service", reason, service)

    async def _maintain(self, check_id: str, what: str, reason: str, service: NodeService | None) -> None:
        definition = CheckDefinition(
            id=check_id,
            name=f"{what} Maintenance Mode",
            notes=reason or _REASON.format(what.lower()),
            status=CRITICAL,
            service_id=service.id if service is not None else "",
        )
        made = check_registration(definition, self._config().node_name, service)
        token = self._local.service_token(service.id) if service is not None else ""
        registration = CheckRegistration(msgspec.structs.replace(made.check, type="maintenance"), definition, token)
        await self._on_disk([_job(self._files.save_check, registration)])
        self._put_check(registration)

    # -- configuration and disk ---------------------------------------------------------------------------------------

    async def load(self, services: Iterable[ServiceDefinition], checks: Iterable[CheckDefinition]) -> None:
        """Begin: what was registered before the last stop, and what the configuration files define, which goes first
        where both have an id. Raises `InvalidRequest`, `Refused`, `LictorError`.

        A check that was registered starts critical until it is run; a TTL check has its last state while that is valid.
        """
        self.runner.import_state(self._files.ttl_states())
        for registration in self._files.services():
            self._local.put_service(registration)
        await self.apply_definitions(services, checks)
        for check in self._files.checks():
            self._load_check(check)
        self._local.begin_unproven()

    def adopt(self, checks: Iterable[Check]) -> None:
        """These checks go on from what the catalog says of them."""
        for check in checks:
            self.runner.adopt(check.check_id, Result(check.status, check.output))

    def _load_check(self, saved: CheckRegistration) -> None:
        check_id, service_id = saved.check.check_id, saved.check.service_id
        if (service_id and self._local.service(service_id) is None) or check_id in self._from_files[1]:
            self._files.forget_check(check_id)
            return
        definition = saved.definition
        if definition.kind:
            definition = msgspec.structs.replace(definition, status="")
        row = msgspec.structs.replace(saved.check, node=self._config().node_name, status=CRITICAL, output="")
        try:
            if definition.kind:
                self._admit_check(definition, remote=True)
            self._put_check(CheckRegistration(row, definition, saved.token))
        except LictorError as error:
            log.warn("a saved check cannot be run any more and is left out", check=check_id, error=str(error))

    async def apply_definitions(self, services: Iterable[ServiceDefinition], checks: Iterable[CheckDefinition]) -> None:
        """Make what the configuration files define be what is registered from them: added, changed, removed.

        Nothing is changed where one of them cannot be. Raises `InvalidRequest`, `Refused`, `LictorError`.
        """
        async with self._changing:
            planned: list[ServiceRegistration] = []
            for definition in services:
                planned += self._plan(definition, [r.service.port for r in planned])
            self._admit(planned, remote=False)
            # A check may name a service that is registered in the same breath.
            known = {r.service.id: r.service for r in planned}
            node_checks = [self._plan_file_check(check, known) for check in checks]
            before_services, before_checks = self._from_files
            now_services = frozenset(known)
            now_checks = frozenset(
                [c.check.check_id for r in planned for c in r.checks] + [c.check.check_id for c in node_checks]
            )
            gone = sorted(before_services - now_services)
            await self._remove_services(gone)
            for check_id in before_checks - now_checks:
                await self._remove_check(check_id)
            await self._on_disk(
                [_job(self._files.forget_service, i) for i in now_services]
                + [_job(self._files.forget_check, i) for i in now_checks - before_checks if self._local.check(i)]
            )
            for registration in planned:
                self._put_service(registration)
            for check in node_checks:
                self._put_check(check)
            self._from_files = (now_services, now_checks)
            self._tell_services()

    def _plan_file_check(self, definition: CheckDefinition, known: dict[str, NodeService]) -> CheckRegistration:
        self._admit_check(definition, remote=False)
        service = known.get(definition.service_id)
        if service is None:
            try:
                return self._plan_check(definition)
            except NotFound as error:
                name = definition.id or definition.name
                raise InvalidRequest(f"Failed to register check '{name}': {error}") from None
        named = msgspec.structs.replace(definition, id=definition.id or definition.name)
        return check_registration(named, self._config().node_name, service)

    def configure(self) -> None:
        """Take over what a reloaded configuration says about all checks."""
        self.runner.configure(check_settings(self._config()))

    async def _on_disk(self, jobs: list[Job]) -> None:
        """Do what must be done on disk, in order, away from the loop. Raises `LictorError` for what cannot be done."""
        if not jobs or not self._files.kept:
            return

        def run() -> None:
            for job in jobs:
                job()

        # Not to be given up half-way: what is on disk and what is in memory must not part.
        work = asyncio.ensure_future(asyncio.to_thread(run))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            with contextlib.suppress(OSError):
                await work
            raise
        except OSError as error:
            raise LictorError(f"cannot be kept on disk: {_words(error)}") from None


Argument = msgspec.Struct | str


def _job(function: Callable[..., None], argument: Argument) -> Job:
    return lambda: function(argument)


def _words(error: OSError) -> str:
    """A system's error as people read it."""
    words = error.strerror or str(error)
    return f"{error.filename}: {words}" if error.filename else words
