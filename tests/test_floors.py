"""The floors: a module imports only from floors below its own, never sideways into another door, never up."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lictor"

FLOORS = {
    "model": 0,
    "raft": 1,
    "gossip": 1,
    "rpc": 1,
    "client": 1,
    "ca": 1,
    "store": 2,
    "server": 3,
    "agent": 4,
    "http": 5,
    "dns": 5,
    "connect_proxy": 5,
    "ui": 5,
    "cli": 6,
}


def imported(path: Path) -> list[tuple[int, str]]:
    """Line and name of every module of the package that a file imports, wherever in the file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "lictor"]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the whole name"
            if node.module is not None and node.module.split(".")[0] == "lictor":
                found.append((node.lineno, node.module))
    return found


def problems(folder: Path) -> list[str]:
    """Every import that goes sideways or up."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).parts
        if len(parts) == 1:
            continue
        own = parts[0]
        for line, name in imported(path):
            other = name.split(".")[1] if "." in name else ""
            if other in ("", own):
                continue
            if other not in FLOORS:
                found.append(f"{path}:{line}: {other} is on no floor")
            elif FLOORS[other] >= FLOORS[own]:
                found.append(f"{path}:{line}: {own} (floor {FLOORS[own]}) imports {other} (floor {FLOORS[other]})")
    return found


def test_every_package_has_a_floor() -> None:
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and any(p.rglob("*.py"))}
    assert folders <= set(FLOORS), f"give these packages a floor: {sorted(folders - set(FLOORS))}"


def test_imports_keep_to_the_floors() -> None:
    assert problems(PACKAGE) == []


@pytest.mark.parametrize(
    ("own", "line"),
    [("store", "from lictor.agent import agent"), ("http", "import lictor.dns.server"), ("model", "import lictor.rpc")],
)
def test_an_import_that_goes_up_or_sideways_is_found(tmp_path: Path, own: str, line: str) -> None:
    folder = tmp_path / own
    folder.mkdir()
    (folder / "file.py").write_text(line + "\n")
    assert len(problems(tmp_path)) == 1
