"""Languages that people write (filters, patterns, configuration files), spoiled: a clear refusal, in bounded time."""

import json
import os
import time
from pathlib import Path
from random import Random

import pytest

from lictor.agent.config import load, parse_flags
from lictor.agent.config.loading import SourceFile
from lictor.agent.config.problem import ConfigError
from lictor.model.regex import Regex, RegexError, TooCostly
from lictor.model.service import NodeService
from lictor.store.filter import FilterError, parse
from lictor.store.reads.catalog import CatalogService
from tests.fuzz import nasty
from tests.fuzz.endpoints import FILTERS, SERVICE

SECONDS = float(os.environ.get("LICTOR_FUZZ_SECONDS", "0.5"))
SEED = int(os.environ.get("LICTOR_FUZZ_SEED", "1"))
WORDS = (
    "and", "or", "not", "in", "not in", "contains", "is empty", "is not empty", "matches", "==", "!=", "(", ")", '"',
    "`", "any", "all", "as", "{", "}", ",", ".", "Meta", "Tags", "Service", "Proxy.Config", "Weights.Passing", "\\",
    "/", "\n", "\x00", "\ud7ff", "-0.5", "999999999999999999999", "Meta.\u00e4",
    '"\\U0010FFFF"', '"\\UFFFFFFFF"', '"\\777"',
)  # fmt: skip
PATTERNS = (
    "(a+)+$", "a{1,1000}", "[[:alpha:]]", "\\pL", "(?i)x", "(?P<n>a)", "\\Qa\\E", "[^]a]", "\\x{10FFFF}", "a|b*?", "^$",
    "(?:)", "[a-z&&b]", "\\b\\B\\A\\z", "(((((", "x**", "[z-a]", "\\8", "(?<n>a)", "(?z)", "{1}", "a{2,1}",
)  # fmt: skip

SERVICE_ROW = NodeService(id="web1", service="web", tags=("a", "b"), meta={"k": "v"}, port=80)

DOCUMENTS = {
    "hcl": """
        datacenter = "dc1" # comment
        ports { http = 8500, dns = 8600 }
        node_meta { a = "b" }
        service { name = "web" port = 80 checks = [{ ttl = "10s" }, { args = ["a", "b"], interval = "10s" }] }
        service { id = "x" name = "y" meta { k = "v" } }
        limits { http_max_conns_per_client = 10 }
        acl { tokens { agent = <<EOT
text
EOT
        } }
        watches = [{ type = "key" key = "a" handler_type = "http" http_handler_config { path = "http://x" } }]
        dns_config { service_ttl { "*" = "5s" } }
        telemetry { prefix_filter = ["+a", "-b"] }
    """,
    "yaml": """
datacenter: dc1
node_name: &n node1
node_meta: {a: b, c: *n}
services:
  - name: web
    port: 80
    checks: [{ttl: 10s}]
ports:
  http: 8500
recursors: [1.1.1.1]
""",
    "json": json.dumps(
        {
            "datacenter": "dc1",
            "services": [{**SERVICE, "Check": None, "Checks": [], "Connect": None}],
            "ports": {"http": 8500},
            "acl": {"enabled": True, "tokens": {"agent": "x"}},
            "config_entries": {"bootstrap": [{"Kind": "proxy-defaults", "Name": "global", "Config": {"a": 1}}]},
            "bind_addr": '{{ GetInterfaceIP "lo" }}',
        },
        indent=1,
    ),
}
PIECES = (
    "{", "}", "[", "]", '"', "=", ":", ",", "\n", "<<EOT\n", "${", "\\u12", "*", "&a", "- ",
    "!!python/object:os.system x",
    "<<: *n", "---", "|", "0x", "1e999", "-", "99999999999999999999999", "/*", "*/", "\x00", "\u00b2", '"\u00b2" = 1',
    "null", ".nan", ".inf", "true", "10s", "\t", "%", "{{ GetPrivateIP", "}}", "\ufeff", "\ud7ff", "1.5", "a b c {",
)  # fmt: skip


def spoil_text(text: str, pieces: tuple[str, ...], rng: Random) -> str:
    """A text with a few of its places cut out, doubled or filled with what does not belong."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, size = rng.randrange(len(text) + 1), rng.choice((0, 0, 1, 3, 20))
        kind = rng.randrange(5)
        if kind == 0:
            new = text[at : at + size] * rng.choice((2, 3, 50))
        elif kind == 1:
            new = rng.choice(nasty.TEXTS)[:300]
        elif kind == 2:
            new = rng.choice(pieces) * rng.choice((1, 1, 200))
        else:
            new = rng.choice(pieces)
        text = text[:at] + new + text[at + size :]
    return text


def test_filters_are_read_or_refused() -> None:
    rng = Random(SEED)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        text = spoil_text(rng.choice(FILTERS), WORDS, rng)
        if rng.random() < 0.3:
            text = " ".join(rng.choices(WORDS, k=rng.randrange(1, 30)))
        begun = time.process_time()
        try:
            found = parse(text)
            found.bind(NodeService)(SERVICE_ROW)
            found.bind(CatalogService)
        except FilterError as error:
            str(error).encode()
        assert time.process_time() - begun < 2, f"slow: {text!r}"


def test_patterns_are_read_or_refused() -> None:
    rng = Random(SEED)
    end = time.monotonic() + SECONDS
    text = "".join(rng.choices("ab\u00e4 x-\n", k=200))
    while time.monotonic() < end:
        pattern = spoil_text("".join(rng.choices(PATTERNS, k=rng.randrange(1, 4))), PATTERNS, rng)
        begun = time.process_time()
        try:
            Regex(pattern).search(text)
        except (RegexError, TooCostly):
            pass
        assert time.process_time() - begun < 2, f"slow: {pattern!r}"


@pytest.mark.parametrize("format", list(DOCUMENTS))
def test_configurations_are_loaded_or_refused(format: str, tmp_path: Path) -> None:
    rng = Random(SEED)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        text = spoil_text(DOCUMENTS[format], PIECES, rng)
        begun = time.process_time()
        try:
            load(parse_flags(["-dev"]), [SourceFile("f." + format, text, format)], [], "host")
        except ConfigError as error:
            assert error.problems
            str(error).encode()
        except Exception as error:
            pytest.fail(f"{error!r} for {text!r}")
        assert time.process_time() - begun < 2, f"slow: {text!r}"


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("yaml", "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))),
        ("yaml", "[" * 5000 + "]" * 5000),
        ("yaml", "a: !!python/object/apply:os.getcwd []"),
        ("json", "[" * 100_000),
        ("json", '{"a":' * 100_000),
        ("hcl", "a = " + "[" * 100_000),
        ("hcl", "a {" * 100_000),
        ("hcl", "a " + '"b" ' * 100_000 + "{}"),
        ("hcl", 'a = "' + "${" * 100_000 + '"'),
        ("hcl", "a = 1" + "0" * 100_000),
        ("json", '{"ports": {"http": 1' + "0" * 100_000 + "}}"),
    ],
)
def test_a_document_that_is_a_bomb_is_refused_at_once(format: str, text: str) -> None:
    begun = time.process_time()
    with pytest.raises(ConfigError) as refused:
        load(parse_flags(["-dev"]), [SourceFile("f", text, format)], [], "host")
    assert len(str(refused.value)) < 10_000
    assert time.process_time() - begun < 5


def test_a_pattern_that_never_finds_its_states_again_is_given_up() -> None:
    rng = Random(SEED)
    pattern = Regex("(a|b)*a(a|b){900}c")
    begun = time.process_time()
    with pytest.raises(TooCostly, match="too many ways to match"):
        for _ in range(3000):
            pattern.search("".join(rng.choices("ab", k=400)))
    assert time.process_time() - begun < 10
    ordinary = Regex("^(web|db)-[a-z0-9]{4,60}\\.(dc1|dc2)$")
    for _ in range(2000):
        ordinary.search("web-" + "".join(rng.choices("abcdefgh0123456789\u00e4", k=50)) + ".dc1")
