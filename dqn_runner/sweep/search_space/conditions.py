"""Conditions: parameters that are searched only for certain values of other settings."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter

from dqn_runner.config.overrides import bare_key
from dqn_runner.core.exceptions import UserError
from dqn_runner.sweep.search_space.parameters import Parameter, same_value


def resolve_conditions(
    parameters: Sequence[Parameter], narrowed: Collection[str], fixed: Mapping[str, str]
) -> Iterator[Parameter]:
    """The parameters that at least one trial can have, with the conditions that depend on the trial.

    `fixed` are the values (as texts of overrides) of settings that all trials share, and `narrowed` the keys
    that the command line gives. Either can make a parameter of the YAML file unused, such as the number of
    atoms of C51 in a sweep without C51. Raises UserError for a condition that can never hold by the YAML file
    alone, and for one on a setting that is neither fixed nor searched before it.
    """
    _reject_cycles(parameters)
    earlier: dict[str, Parameter] = {}
    unused: set[str] = set()
    for number, parameter in enumerate(parameters):
        when: dict[str, tuple[str, ...]] = {}
        used = True
        for key, allowed in parameter.when.items():
            if key in fixed:
                used &= any(same_value(fixed[key], text) for text in allowed)
            elif key in earlier:
                possible = _possible(parameter, earlier[key], allowed, key in narrowed)
                used &= bool(possible)
                when[earlier[key].name] = possible
            elif key in unused:
                used = False
            else:
                raise UserError(_unknown(parameter, key, parameters[number + 1 :]))
        if used:
            earlier[bare_key(parameter.name)] = replace(parameter, when=when)
            yield earlier[bare_key(parameter.name)]
        else:
            unused.add(bare_key(parameter.name))


def _possible(
    parameter: Parameter, other: Parameter, allowed: tuple[str, ...], narrowed: bool
) -> tuple[str, ...]:
    """The values in `allowed` that `other` can have, as the texts that `other` has for them."""
    if other.is_continuous:
        raise UserError(
            f"{parameter.name} depends on {other.name}, which is continuous; conditions can only be on "
            "choices and ranges"
        )
    found = {text: other.find(text) for text in allowed}
    never = [text for text, known in found.items() if known is None]
    if never and not narrowed:
        raise UserError(
            f"{parameter.name} depends on {other.name} being {', '.join(never)}, which it cannot be; correct "
            "one of them"
        )
    return tuple(known for known in found.values() if known is not None)


def _unknown(parameter: Parameter, key: str, later: Sequence[Parameter]) -> str:
    if key in {bare_key(other.name) for other in later}:
        return f"{parameter.name} depends on {key}, which is defined after it; write {key} first"
    return (
        f"{parameter.name} depends on {key}, which is neither searched nor fixed; add it to "
        f"hydra.sweeper.params, or give {key}=... on the command line"
    )


def _reject_cycles(parameters: Sequence[Parameter]) -> None:
    try:
        TopologicalSorter({bare_key(p.name): set(p.when) for p in parameters}).prepare()
    except CycleError as error:
        raise UserError(
            f"parameters depend on each other in a circle: {' -> '.join(error.args[1])}"
        ) from None
