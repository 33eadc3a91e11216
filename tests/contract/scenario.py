"""The scenario file: requests and the answers that the reference gave, in a form that a person reads and re-records.

    # Text for the reader.
    ! profile tuned                      settings of the whole file, before the first request
    > PUT /v1/session/create             a request: method and path
    + X-Header: value                    its headers
    | {"Name": "{name}"}                 its body, a line each
    = session ID                         what to remember of the answer: name, and path into the JSON
    ? passing                            ask again until the answer holds this text
      200                                the answer: status, headers that matter, body
      Content-Type: application/json
      {"ID": "{session}"}
    > DIG {name}.service.consul SRV tcp  a DNS question: name, type, then options (tcp, edns=1400, server-side flags)

`{name}` is a name that no other case uses. Everything between braces is remembered text and is put back into answers,
so recordings hold no ids. Numbers and ids that differ each time are labelled in `normal.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent / "scenarios"


@dataclass
class Step:
    """One request and the recorded answer, as lines of text."""

    comment: list[str]
    request: str
    line: int
    headers: dict[str, str] = field(default_factory=dict)
    body: list[str] = field(default_factory=list)
    captures: list[tuple[str, str]] = field(default_factory=list)
    until: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)


@dataclass
class Scenario:
    """A file of steps. `settings` are its `!` lines: `profile NAME`; `fresh` for an agent of its own; `any-index`."""

    path: Path
    settings: dict[str, str]
    steps: list[Step]
    trailer: list[str]

    @property
    def title(self) -> str:
        """The path below the folder of scenarios, without its ending."""
        return self.path.relative_to(FOLDER).with_suffix("").as_posix()

    @property
    def profile(self) -> str:
        """The servers' configuration that it is for."""
        return self.settings.get("profile", "plain")

    @property
    def fresh(self) -> bool:
        """Whether it needs a server that nobody has talked to."""
        return "fresh" in self.settings

    @property
    def labels_indexes(self) -> bool:
        """Whether equal indexes can be told from different ones: not where a server's own start decides."""
        return "any-index" not in self.settings


def load_all() -> list[Scenario]:
    """Every scenario, in the order of their paths."""
    return [parse(path, path.read_text()) for path in sorted(FOLDER.rglob("*.txt"))]


def parse(path: Path, text: str) -> Scenario:
    """Reads a scenario file. Raises ValueError naming file, line and what may stand there."""
    settings: dict[str, str] = {}
    steps: list[Step] = []
    comment: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        mark, rest = line[:2].strip(), line[2:]
        if not line.strip() or mark == "#":
            comment.append(line)
        elif mark == ">":
            steps.append(Step(comment, rest.strip(), number))
            comment = []
        elif mark == "!" and not steps:
            key, _, value = rest.strip().partition(" ")
            settings[key] = value
            comment.append(line)
        elif not steps:
            raise ValueError(f"{path}:{number}: a request (`> METHOD /path`) must come first, not {line!r}")
        else:
            _add_to_step(steps[-1], line, f"{path}:{number}")
    return Scenario(path, settings, steps, comment)


def _add_to_step(step: Step, line: str, place: str) -> None:
    mark, rest = line[:2], line[2:]
    match mark:
        case "  ":
            step.expected.append(rest)
        case "| " | "|":
            step.body.append(rest)
        case "+ ":
            name, _, value = rest.partition(":")
            step.headers[name.strip()] = value.strip()
        case "= ":
            name, _, where = rest.strip().partition(" ")
            step.captures.append((name, where))
        case "? ":
            step.until.append(rest)
        case _:
            raise ValueError(f"{place}: a line starts with `> `, `+ `, `| `, `= `, `? `, `# ` or two spaces: {line!r}")


def render(scenario: Scenario, answers: Iterable[list[str]]) -> str:
    """The file's text with these answers in place of the recorded ones."""
    lines: list[str] = []
    for step, answer in zip(scenario.steps, answers, strict=True):
        lines += step.comment
        lines.append(f"> {step.request}")
        lines += [f"+ {name}: {value}" for name, value in step.headers.items()]
        lines += [f"| {text}".rstrip() if not text else f"| {text}" for text in step.body]
        lines += [f"= {name} {where}".rstrip() for name, where in step.captures]
        lines += [f"? {text}" for text in step.until]
        lines += [f"  {text}" for text in answer]
    lines += scenario.trailer
    return "\n".join(lines).rstrip() + "\n"
