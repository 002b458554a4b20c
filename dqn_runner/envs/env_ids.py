"""Ids in gymnasium's registry: which are known, versions that were left out, what to do about unknown ids."""

from __future__ import annotations

import difflib
import re
from typing import Any

from dqn_runner.core.lazy_imports import gymnasium

_EXTRAS = ("minigrid",)
"""Modules that extras of dqn_runner install, and that register their environments when they are imported."""


def resolve(env_id: str) -> str:
    """Return a registered id with its version, the newest if it was left out; any other id unchanged."""
    if ":" in env_id or env_id in gymnasium.registry:
        return env_id
    specs = [spec for spec in gymnasium.registry.values() if _unversioned(spec) == env_id]
    versions = {spec.version or 0: spec.id for spec in specs}
    return versions[max(versions)] if versions else env_id


def is_registered(env_id: str) -> bool:
    """Whether an id is in gymnasium's registry now, so that making it imports what is installed and known.

    An id may lack its version. One with a module (`my_pkg:Env-v0`, `my_pkg.Env-v0`) counts only if an extra
    installs that module.
    """
    module, _, name = env_id.rpartition(":")
    if module in _EXTRAS:
        return re.fullmatch(r"[\w/-]+-v\d+", name) is not None
    if ":" in env_id or "." in env_id:
        return False
    registry = gymnasium.registry
    return env_id in registry or any(_unversioned(spec) == env_id for spec in registry.values())


def is_own_env(env_id: str) -> bool:
    """Whether a registered environment is one of gymnasium itself, whose arguments import nothing."""
    specs = [spec for spec in gymnasium.registry.values() if env_id in (spec.id, _unversioned(spec))]
    return all(str(spec.entry_point).startswith("gymnasium.envs.") for spec in specs)


def explain(env_id: str, error: Exception) -> str:
    """Return what to write or install instead of an id that gymnasium could not make because of `error`."""
    if isinstance(error, gymnasium.error.DependencyNotInstalled):
        ours = {"gymnasium[box2d]": "dqn_runner[box2d]", "gymnasium[classic-control]": "dqn_runner[render]"}
        text = str(error)
        for theirs, extra in ours.items():
            if theirs in text:
                return f"it needs a package that is not installed: pip install '{extra}'"
        return text
    if not isinstance(error, gymnasium.error.UnregisteredEnv):
        return str(error)
    if game := atari_game(env_id):
        return f"Atari games are env=atari env.game={game}, which needs 'dqn_runner[atari]'"
    if env_id.startswith("MinAtar/"):
        game = re.sub(r"(-v\d+)?$", "", env_id.removeprefix("MinAtar/"))
        snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", game).lower()
        return f"MinAtar games are env=minatar env.game={snake}, which needs 'dqn_runner[minatar]'"
    known = any(each.startswith("MiniGrid-") for each in gymnasium.registry)
    if re.match("(MiniGrid|BabyAI)-", env_id) and not known:
        return f"it needs pip install minigrid, and is then named as env.id=minigrid:{env_id}"
    return f"no such environment is registered{_suggestion(env_id.rpartition(':')[2])}"


def atari_game(env_id: str) -> str | None:
    """Return the game that an id of an Atari environment names, as in `ALE/Pong-v5`; None for another id."""
    found = re.fullmatch(r"ALE/(\w+?)(?:-v\d+)?|(\w+?)(?:NoFrameskip)?-v[45]", env_id)
    return found[1] or found[2] if found else None


def _suggestion(name: str) -> str:
    ids = {each.lower(): each for each in gymnasium.registry}
    if close := difflib.get_close_matches(name.lower(), ids, n=1):
        return f"; did you mean {ids[close[0]]}?"
    return "; one of your own is env.id=my_pkg.my_envs:MyEnv, or MyEnv-v0 if the module registers it"


def _unversioned(spec: Any) -> str:
    return f"{spec.namespace}/{spec.name}" if spec.namespace else spec.name
