"""Keys that nothing obeys yet are named to whoever relies on them, and to nobody else."""

from lictor.agent.config.flags import walk
from lictor.agent.config.pending import PENDING, relied_on, warnings_of
from lictor.agent.config.problem import dotted
from tests.agent.config.conftest import Load


def test_every_listed_key_is_one() -> None:
    assert set(PENDING) <= {dotted(path) for path, _, _ in walk()}


def test_nobody_who_sets_none_is_warned(loaded: Load) -> None:
    for argv in (("-dev",), ("-data-dir=/d",), ("-data-dir=/d", "-server", "-bootstrap-expect=1", "-bind=10.1.2.3")):
        assert warnings_of(loaded(argv=argv)[0]) == []
    assert relied_on(loaded('node_meta { a = "b" } dns_config { node_ttl = "1s" } retry_max = 0')[0]) == []


def test_the_keys_that_are_relied_on_are_named(loaded: Load) -> None:
    config, _ = loaded('server_name = "x" audit { enabled = true } peering { enabled = false }')
    assert warnings_of(config) == ["Without effect in this version: audit.enabled, peering.enabled, server_name"]
