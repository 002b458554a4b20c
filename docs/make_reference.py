"""Writes docs/reference.md, the table of all options, from the registered dataclasses.

python docs/make_reference.py           write it
python docs/make_reference.py --check   exit 1 if it is out of date
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import sys
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf

from dqn_runner.config import schema
from dqn_runner.core.registry import options, slots
from dqn_runner.sweep import hydra_sweeper
from dqn_runner.sweep.config import SweepConfig
from dqn_runner.sweep.objectives import OBJECTIVES

TARGET = Path(__file__).parent / "reference.md"
CONF = Path(__file__).parent.parent / "conf"
HEAD = """# Every setting

All settings and their defaults; the [quick reference](quick-reference.md) has those that are used most.
`group=option` chooses a part, `key=value` sets a value, as in
`agent/loss=q_learning agent.loss.error=squared`. A run starts from
`agent=dqn env=cartpole trainer=steps logging=[console,file,jsonl]`.

`make docs` generates this page from the source.
"""
ROOT_KEYS = ("agent", "env", "trainer", "evaluator", "logging")


def field_docs(cls: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, including inherited fields."""
    body = ast.parse(inspect.cleandoc(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for base in cls.__bases__:
        if dataclasses.is_dataclass(base):
            found |= field_docs(base)
    for node, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            match after:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    found[node.target.id] = " ".join(text.split())
    return found


def default_of(field: dataclasses.Field[Any], parts: dict[str, type]) -> str:
    """The default of a field, as on the command line, and what else it accepts; within backticks."""
    if field.name in parts:
        return options()[parts[field.name]][1]
    if field.default == MISSING:  # Hydra's sweeper names the choice of its parts itself
        return hydra_sweeper.DEFAULTS.get(field.name, MISSING)
    made = field.default_factory is not dataclasses.MISSING
    value = field.default_factory() if made else field.default
    if isinstance(value, Enum):
        others = [str(member.value) for member in type(value) if member is not value]
        return f"{value.value}`, or `{'`, `'.join(others)}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)


def section(cls: type, title: str, prefix: str) -> list[str]:
    """A heading, the docstring of the class, and a table of its fields."""
    summary = inspect.getdoc(cls) or ""
    lines = [f"{'###' if prefix else '##'} {title}", "", summary.replace("\n\n", "\n"), ""]
    docs, parts = field_docs(cls), slots(cls)
    rows = [f for f in dataclasses.fields(cls) if f.name not in ROOT_KEYS or cls is not schema.RunConfig]
    if rows:
        lines += ["| key | default | meaning |", "|---|---|---|"]
    for field in rows:
        if dataclasses.is_dataclass(field.default_factory):
            lines += section(field.default_factory, "", f"{prefix}{field.name}.")[6:-1]
            continue
        group = prefix.replace(".", "/")
        text = docs.get(field.name) or (f"a part: `{group}{field.name}=...`" if field.name in parts else "")
        default = default_of(field, parts).replace("|", "\\|")
        lines.append(f"| `{prefix}{field.name}` | `{default}` | {text.replace('|', chr(92) + '|')} |")
    return [*lines, ""]


def reference() -> str:
    """The whole page."""
    lines = [HEAD, *section(schema.RunConfig, "The run", "")]
    group_before = ""
    for cls, (group, name) in sorted(options().items(), key=lambda item: item[1]):
        if group != group_before:
            lines += [f"## `{group}`", ""]
            lines += in_conf(group)
            group_before = group
        prefix = f"{group.replace('/', '.')}.{name}." if group == "logging" else f"{group.replace('/', '.')}."
        lines += section(cls, f"`{group}={name}`", prefix)
    lines += ["## `experiment`", "", "Complete recipes.", "", *in_conf("experiment")]
    lines += ["## `search`", "", "Search spaces of sweeps.", "", *in_conf("search"), *sweeps()]
    return "\n".join(lines).rstrip() + "\n"


def sweeps() -> list[str]:
    """The settings under `hydra.sweeper`, which docs/sweeps.md explains."""
    lines = [
        "## Sweeps",
        "",
        "With `hydra/sweeper=optuna` or `search=...`; [sweeps](sweeps.md) explains them.",
        "",
    ]
    lines += section(SweepConfig, "`hydra/sweeper=optuna`", "hydra.sweeper.")
    lines += ["| objective | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in OBJECTIVES.items()]
    for part, choices in {"sampler": hydra_sweeper.SAMPLERS, "pruner": hydra_sweeper.PRUNERS}.items():
        lines += ["", f"| `hydra.sweeper.{part}` | class | set to |", "|---|---|---|"]
        for name, node in choices.items():
            given = [f"`{k}={json.dumps(v).strip(chr(34))}`" for k, v in node.items() if k != "_target_"]
            lines.append(f"| `{name}` | `{node['_target_']}` | {', '.join(given)} |")
    more = (
        "Every other argument of the class can be given, as in `hydra.sweeper.sampler.n_startup_trials=20`."
    )
    return [*lines, "", more, ""]


def in_conf(group: str) -> list[str]:
    """A table of the options of a group that are YAML files, with their comments; empty if there are none."""
    found: list[str] = []
    for path in sorted((CONF / group).glob("*.yaml")):
        comments = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ")]
        # an indented line is a command
        texts = [
            f"`{c.strip()}`" if c.startswith(" ") else c for c in comments if not c.startswith("@package")
        ]
        values = "" if "@package _global_" in comments else f" {what_it_sets(path, group)}"
        text = f"{' '.join(texts)}{values}".replace("|", "\\|")
        found.append(f"| `{group}={path.stem}` | {text} |")
    return ["| option | what it sets |", "|---|---|", *found, ""] if found else []


def what_it_sets(path: Path, group: str) -> str:
    """The settings of a file, as overrides; those of a file that it extends are not repeated."""
    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    found: list[str] = []
    for entry in content.pop("defaults", []):
        if hasattr(entry, "items"):
            found += [f"{group}/{str(key).removeprefix('override ')}={value}" for key, value in entry.items()]
        elif entry != "_self_":
            found.insert(0, f"{group}={entry}")
    found += [f"{group}.{key}={value}" for key, value in flat(content)]
    return " ".join(f"`{override}`" for override in found)


def flat(values: Any, prefix: str = "") -> list[tuple[str, str]]:
    """The values of a nested dictionary by their dotted keys, as on the command line."""
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        if hasattr(value, "items"):
            found += flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)))
    return found


def main() -> None:
    """Write the page, or compare it."""
    text = reference()
    if "--check" not in sys.argv:
        TARGET.write_text(text)
    elif not TARGET.exists() or TARGET.read_text() != text:
        sys.exit("docs/reference.md is out of date; run `make docs`")


if __name__ == "__main__":
    main()
