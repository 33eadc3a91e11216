"""Shell completion: the candidates, the scripts, and a real bash that completes with them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lictor.cli.completion import candidates
from tests.cli.command_line import ROOT, here
from tests.patience import PATIENCE


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lictor ke", ["keygen", "keyring"]),
        ("lictor tls ", ["-help", "ca", "cert"]),
        ("lictor tls ca cr", ["create"]),
        ("lictor rtt -w", ["-wan"]),
        ("lictor rtt --w", ["--wan"]),
        ("lictor tls ca create -d", ["-days", "-domain"]),
        ("lictor rtt -http-addr ", []),
        ("lictor rtt -http-addr -", []),
        ("lictor rtt -wan -http-addr=x -w", ["-wan"]),
        ("lictor rtt no", []),
        ("lictor nonsense ", []),
        ("lictor tls nonsense ", []),
        ("lictor lock -- -", []),
    ],
)
def test_what_may_stand_at_the_cursor(line: str, words: list[str]) -> None:
    assert candidates(line, len(line)) == words


def test_only_what_is_before_the_cursor_counts() -> None:
    assert candidates("lictor rtt -wan nodes", len("lictor rt")) == ["rtt"]
    assert "watch" in candidates("lictor ", 7)
    assert candidates("", 0) == candidates("lictor ", 7)


def test_the_shell_is_answered_instead_of_the_command_run() -> None:
    done = here("ignored", env={"COMP_LINE": "lictor keyr", "COMP_POINT": "11"})
    assert done == (0, "keyring\n", "")
    assert here("ignored", env={"COMP_LINE": "lictor keyr", "COMP_POINT": "x"}).out == "keyring\n"


def test_a_script_for_each_shell() -> None:
    assert here("completion", "bash").out.startswith("complete -o default -C ")
    assert "bashcompinit" in here("completion", "zsh").out
    assert "complete -c lictor" in here("completion", "fish").out
    assert here("completion", "tcsh").err.startswith("Name one shell: bash, zsh or fish")


def test_installing_keeps_what_was_there_and_uninstalling_restores_it(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    bashrc, zshrc = tmp_path / ".bashrc", tmp_path / ".zshrc"
    bashrc.write_text("export A=1")
    bashrc.chmod(0o600)
    zshrc.write_text("setopt x\n")
    (tmp_path / ".config/fish").mkdir(parents=True)
    done = here("-autocomplete-install", env=home)
    assert done.code == 0
    assert bashrc.read_text().startswith("export A=1\ncomplete -o default -C ")
    assert bashrc.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".config/fish/completions/lictor.fish").is_file()
    again = here("-autocomplete-install", env=home)
    assert again.code == 1
    assert again.err.startswith("already installed in ")
    assert here("--autocomplete-uninstall", env=home).code == 0
    assert bashrc.read_text() == "export A=1\n"
    assert zshrc.read_text() == "setopt x\n"
    assert not (tmp_path / ".config/fish/completions/lictor.fish").exists()
    assert here("-autocomplete-uninstall", env=home).err == "Completion is not installed\n"


def test_without_a_shell_there_is_nothing_to_install(tmp_path: Path) -> None:
    done = here("-autocomplete-install", env={"HOME": str(tmp_path)})
    assert done.code == 1
    assert done.err.startswith("Did not find any shells to install\n")


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    program = tmp_path / "lictor"
    program.write_text(f"#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m lictor\n")
    program.chmod(0o755)
    script = 'complete -C lictor lictor; COMP_LINE="lictor kv g" COMP_POINT=11 lictor; complete -p lictor'
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=env, timeout=PATIENCE, check=True)
    assert done.stdout.splitlines()[0] == "get"
