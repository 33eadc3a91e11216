"""Command-line flags with Go's grammar."""

import os
import re
import subprocess

import pytest

from lictor.model.environment import env, env_bool
from lictor.model.goflags import FlagError, FlagSet, HelpWanted, wrap


def flags() -> FlagSet:
    made = FlagSet("demo", "Usage: lictor demo [options]")
    made.string("name", "none", "Name of the thing.")
    made.bool("server", False, "Switch to `server` mode.")
    made.int("n", 1, "How many.")
    made.duration("timeout", 0.0, "How long.")
    made.strings("tag", (), "Tag. May be specified multiple times.")
    return made


@pytest.mark.parametrize("dash", ["-", "--"])
def test_one_dash_or_two_with_and_without_equals(dash: str) -> None:
    made = flags()
    rest = made.parse([f"{dash}name=a", f"{dash}n", "0x10", f"{dash}server", f"{dash}timeout=1m", "rest", "-name=b"])
    assert rest == ["rest", "-name=b"]
    assert (made["name"], made["n"], made["server"], made["timeout"]) == ("a", 16, True, 60.0)


def test_a_boolean_takes_its_value_only_after_equals() -> None:
    made = flags()
    assert made.parse(["-server=false", "--", "-n"]) == ["-n"]
    assert made["server"] is False and made.given("server")
    assert not made.given("n") and made["n"] == 1


def test_a_repeatable_flag_keeps_every_value() -> None:
    made = flags()
    made.parse(["-tag", "a", "-name", "x", "-tag=b"])
    assert made["tag"] == ("a", "b")
    assert made.in_order("tag", "name") == ["a", "x", "b"]


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["-nme=x"], "flag provided but not defined: -nme (did you mean -name?)"),
        (["-zzzz"], "flag provided but not defined: -zzzz"),
        (["-name"], "flag needs an argument: -name"),
        (["-n=x"], 'invalid value "x" for flag -n: parse error'),
        (["-timeout=1d"], 'invalid value "1d" for flag -timeout: parse error'),
        (["-server=maybe"], 'invalid boolean value "maybe" for -server: parse error'),
        (["---n=1"], "bad flag syntax: ---n=1"),
        (["-=1"], "bad flag syntax: -=1"),
    ],
)
def test_a_bad_command_line_is_refused_with_gos_text(argv: list[str], error: str) -> None:
    with pytest.raises(FlagError) as caught:
        flags().parse(argv)
    assert str(caught.value) == error


def test_help_is_asked_for_with_h() -> None:
    for word in ("-h", "--help"):
        with pytest.raises(HelpWanted):
            flags().parse([word])


def test_help_lists_flags_by_name_under_their_section() -> None:
    text = flags().help_text()
    assert text.startswith("Usage: lictor demo [options]\n\nCommand Options\n\n  -n=<int>\n     How many.\n\n")
    assert "  -server\n     Switch to `server` mode." in text
    assert "  -server\n    \tSwitch to server mode." in flags().defaults_text()


def test_help_is_wrapped_as_the_reference_wraps_it() -> None:
    binary = os.environ.get("LICTOR_REFERENCE_CONSUL")
    if not binary:
        pytest.skip("LICTOR_REFERENCE_CONSUL names no reference binary")
    shown = subprocess.run([binary, "agent", "-h"], capture_output=True, text=True, timeout=60).stdout
    paragraphs = re.findall(r"\n\n?  -[^\n]*\n((?:     .*\n)+)", shown)
    assert len(paragraphs) > 30
    for paragraph in paragraphs:
        lines = [line.strip() for line in paragraph.splitlines()]
        assert wrap(" ".join(lines), 67) == lines


def test_an_environment_variable_has_a_twin_that_wins() -> None:
    assert env("HTTP_ADDR", {"CONSUL_HTTP_ADDR": "a"}) == "a"
    assert env("HTTP_ADDR", {"CONSUL_HTTP_ADDR": "a", "LICTOR_HTTP_ADDR": "b"}) == "b"
    assert env("HTTP_ADDR", {"LICTOR_HTTP_ADDR": ""}) is None
    assert env_bool("HTTP_SSL", {"CONSUL_HTTP_SSL": "true"}) is True
    with pytest.raises(ValueError, match="HTTP_SSL"):
        env_bool("HTTP_SSL", {"CONSUL_HTTP_SSL": "perhaps"})
