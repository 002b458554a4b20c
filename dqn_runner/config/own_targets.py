"""`agent.loss._target_=my_pkg.MyLoss`: a class in the place of a part, with its own settings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dqn_runner.config.overrides import bare_key
from dqn_runner.core.registry import TARGET, class_of, options


def with_new_keys(tokens: Sequence[str]) -> list[str]:
    """A command line whose overrides of the settings of such classes may add keys: `++agent.loss.limit=3`."""
    pairs = [token.partition("=") for token in tokens]
    targets = {bare_key(key): value for key, _, value in pairs}
    places = [place for place in _places(targets) if class_of(targets[f"{place}.{TARGET}"]) is None]

    def is_setting(key: str) -> bool:
        return any(key.startswith(f"{place}.") and key != f"{place}.{TARGET}" for place in places)

    return [
        f"++{token}" if is_setting(key) else token for token, (key, _, _) in zip(tokens, pairs, strict=True)
    ]


def drop_replaced_settings(cfg: DictConfig, overridden: Collection[str]) -> None:
    """Leave such a class the settings that the command gives, without those of the option that it replaces.

    `overridden` are the keys of the command. An option of a YAML file keeps what it sets.
    """
    keys = [key.replace("/", ".") for key in overridden]
    for place in sorted(_places(keys), reverse=True):  # a schedule before its exploration
        node: Any = OmegaConf.select(cfg, place)
        if not isinstance(node, DictConfig) or OmegaConf.get_type(node) is dict or not _is_replaced(node):
            continue
        given = {key[len(place) + 1 :].partition(".")[0] for key in keys if key.startswith(f"{place}.")}
        kept = OmegaConf.masked_copy(node, [key for key in node if key in given])
        OmegaConf.update(cfg, place, OmegaConf.to_container(kept, enum_to_str=True), merge=False)


def _places(keys: Collection[str]) -> list[str]:
    """The parts of the agent whose class is one of the keys."""
    groups = {group.replace("/", ".") for group, _ in options().values() if group.startswith("agent/")}
    return [place for place in groups if f"{place}.{TARGET}" in keys]


def _is_replaced(node: DictConfig) -> bool:
    """Whether the class is not one of this program; what `${...}` stands for is not resolved here."""
    return OmegaConf.is_interpolation(node, TARGET) or class_of(node[TARGET]) is None
