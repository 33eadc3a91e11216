"""Where to join others: addresses, and programs that print them."""

import pytest

from lictor.agent.config import debug_config
from lictor.agent.config.join_sources import JoinAddress, JoinProgram, parse_join, without_secrets
from tests.agent.config.conftest import Load, Problems


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("10.0.0.1", JoinAddress("10.0.0.1")),
        ("db.example.com:8301", JoinAddress("db.example.com", 8301)),
        ("[::1]:8301", JoinAddress("::1", 8301)),
        ("::1", JoinAddress("::1")),
        ("provider=exec args=/bin/servers", JoinProgram(("/bin/servers",))),
        (
            'provider=exec timeout=1m30s args="/bin/servers --role \\"a b\\" \\\\\\\\x"',
            JoinProgram(("/bin/servers", "--role", "a b", "\\x"), 90.0),
        ),
        ('args="/bin/servers $HOME" provider=exec', JoinProgram(("/bin/servers", "$HOME"))),
    ],
)
def test_sources_are_addresses_and_programs(text: str, source: object) -> None:
    assert parse_join(text) == source


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a b", "'a b' is no address: give a host, host:port or [IPv6 address]:port"),
        ("a:0", "'a:0' is no address: its port must be a number from 1 to 65535"),
        ("provider=exec", 'provider=exec needs args: the program and its arguments, as args="/path/program --flag"'),
        (
            'provider=exec args=""',
            'provider=exec needs args: the program and its arguments, as args="/path/program --fl',
        ),
        ("provider=exec arg=x", 'provider=exec has no key "arg" (did you mean "args"?)'),
        ("provider=exec args=x timeout=5", "the timeout of provider=exec: time: missing unit in duration"),
        ("provider=exec args=x timeout=0s", "the timeout of provider=exec must be more than zero"),
        ('provider=exec args="it\'s"', "the args of provider=exec cannot be read: No closing quotation"),
        ("provider=exec args=x args=y", "\"args\" is given twice in 'provider=exec args=x args=y'"),
        ("provider=exec /bin/servers", "'/bin/servers' is no key=value; a value with blanks stands in quotes"),
        ('provider=exec args="x', "'args=\"x' is no key=value; a value with blanks stands in quotes"),
        ("provider=exec args=" + "x" * 5000, "is longer than 4096 characters"),
    ],
)
def test_what_is_neither_is_refused_with_its_key(text: str, problem: str, problems: Problems) -> None:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    (found,) = problems(f'retry_join = ["{quoted}"]')
    assert found.startswith("c0.hcl:1: retry_join: ") and problem in found
    (found,) = problems(f'retry_join_wan = ["{quoted}"]')
    assert found.startswith("c0.hcl:1: retry_join_wan: ") and problem in found


def test_a_configuration_holds_its_sources_once_and_in_order(loaded: Load) -> None:
    config, warnings = loaded(
        'retry_join = ["b", "provider=exec args=x", "b"] start_join = ["a:1"] server = true retry_join_wan = ["c"]',
        argv=("-data-dir=/d", "-retry-join=f", "-join=g"),
    )
    assert config.join_lan == (
        JoinAddress("f"),
        JoinAddress("g"),
        JoinAddress("b"),
        JoinProgram(("x",)),
        JoinAddress("a", 1),
    )
    assert config.join_wan == (JoinAddress("c"),)
    assert "The 'start_join' field is deprecated. Use the 'retry_join' field instead." in warnings


def test_a_template_may_give_several_addresses_and_stand_in_a_program_s_arguments(loaded: Load) -> None:
    config, _ = loaded(
        'retry_join = ["{{ GetPrivateIPs }}", "provider=exec args=\\"x {{ GetPrivateIP }}\\""]', argv=("-data-dir=/d",)
    )
    assert config.join_lan == (JoinAddress("10.1.2.3"), JoinProgram(("x", "10.1.2.3")))


def test_another_provider_is_left_out_with_what_to_do_instead(loaded: Load) -> None:
    config, warnings = loaded('retry_join = ["provider=gce project_name=p zone_pattern=z credentials_token=s3cret"]')
    assert config.join_lan == ()
    (warning,) = warnings
    assert 'there is no provider "gce"' in warning and 'provider=exec args="/path/program"' in warning
    assert "s3cret" not in warning and "s3cret" not in str(debug_config(config))


def test_credentials_of_providers_are_hidden() -> None:
    assert without_secrets("provider=aws secret_access_key=x region=eu") == (
        "provider=aws secret_access_key=hidden region=eu"
    )
    assert without_secrets("secret-token.example.com:8301") == "secret-token.example.com:8301"


def test_a_dev_server_that_should_join_others_is_told_that_it_stays_alone(loaded: Load) -> None:
    for argv in (("-dev", "-retry-join=10.0.0.1"), ("-dev", "-join=10.0.0.1")):
        _, warnings = loaded(argv=argv)
        assert any("retry_join has no effect with -dev" in warning and "data_dir" in warning for warning in warnings)
