"""Keys of the authority's configuration that no provider has: they are told, with those that are meant."""

import re
from pathlib import Path
from typing import Any

import pytest

from lictor.ca.configuration import BUILTIN, VAULT, canonical
from lictor.ca.known_keys import LONGEST_KEY, MOST_TOLD, unknown_keys

MANUAL = (Path(__file__).parents[2] / "docs" / "ca.md").read_text()
LOGIN = {"Type": "approle", "MountPath": "m", "Params": {"role_id": "r", "secret_id_file_path": "f"}}


@pytest.mark.parametrize(
    ("kind", "config", "told"),
    [
        (BUILTIN, {"PrivateKeyTyp": "ec"}, ['unknown key "PrivateKeyTyp" (did you mean "PrivateKeyType"?)']),
        (BUILTIN, {"private_key_typ": "ec"}, ['unknown key "private_key_typ" (did you mean "private_key_type"?)']),
        (BUILTIN, {"Leafcertttl": "72h"}, ['unknown key "Leafcertttl" (did you mean "LeafCertTTL"?)']),
        (BUILTIN, {"Address": "https://vault:8200"}, ['unknown key "Address"']),
        (BUILTIN, {'a\n"b': 1}, [r'unknown key "a\n\"b"']),
        (VAULT, {"RootPKIPaths": "r"}, ['unknown key "RootPKIPaths" (did you mean "RootPKIPath"?)']),
        (VAULT, {"PrivateKey": "…"}, ['unknown key "PrivateKey" (did you mean "PrivateKeyType"?)']),
        (VAULT, {"rootpkipath": "r", "TLSSKIPVERIFY": True}, []),
        (VAULT, {"AuthMethod": LOGIN}, []),
        (
            VAULT,
            {"AuthMethod": {**LOGIN, "Mount": "m"}},
            ['unknown key "AuthMethod.Mount" (did you mean "AuthMethod.MountPath"?)'],
        ),
        (
            VAULT,
            {"auth_method": [{"type": "jwt", "params": [{"role": "r", "jwt_path": "f"}]}]},
            ['unknown key "auth_method.params.jwt_path" (did you mean "auth_method.params.path"?)'],
        ),
        (VAULT, {"AuthMethod": {"Type": ["jwt"], "Params": {"anything": "…"}}}, []),
        (VAULT, {"AuthMethod": "userpass"}, []),
        ("aws-pca", {"ExistingARN": "arn"}, []),
    ],
)
def test_what_is_not_known_is_told(kind: str, config: dict[str, Any], told: list[str]) -> None:
    assert unknown_keys(kind, config) == told


def test_the_keys_of_the_manual_are_known() -> None:
    tables = {BUILTIN: MANUAL.partition("## Configuration")[2].partition("## Another root")[0]}
    tables[VAULT] = MANUAL.partition("## Vault")[2].partition("| `type` |")[0]
    for kind, text in tables.items():
        rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (`\w+`(?:, `\w+`)*) \|", text, re.MULTILINE)
        files, api = (dict.fromkeys(re.findall(r"\w+", " ".join(row[side] for row in rows)), "") for side in (0, 1))
        assert len(files) == len(api) > 8 and list(canonical(files)) == list(canonical(api))
        assert unknown_keys(kind, files) == unknown_keys(kind, api) == []


def test_the_parameters_of_the_manual_are_known() -> None:
    logins = re.findall(r"^\| `(\w+)` \| (.*(?:role|username).*) \|$", MANUAL, re.MULTILINE)
    assert [kind for kind, _ in logins] == ["approle", "kubernetes", "jwt", "userpass"]
    for kind, names in logins:
        params = dict.fromkeys(re.findall(r"`(\w+)`", names), "x")
        assert len(params) > 1 and unknown_keys(VAULT, {"AuthMethod": {"Type": kind, "Params": params}}) == []


def test_much_that_is_not_known_is_told_in_short() -> None:
    told = unknown_keys(BUILTIN, {f"{number}" * 9: number for number in range(100_000)})
    assert len(told) == MOST_TOLD + 1 and told[-1] == f"{100_000 - MOST_TOLD} more unknown keys"
    [long] = unknown_keys(BUILTIN, {"PrivateKeyType" * 100_000: "ec"})
    assert len(long) < 2 * LONGEST_KEY
