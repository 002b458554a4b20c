"""The global random generators that an environment may draw from: those of `random`, numpy and torch.

dqn_runner itself never uses them (see `core/rng.py`). An environment that does gets a state of its own,
seeded at each reset, so that its episodes are a function of their seeds and no other code disturbs them.
"""

from __future__ import annotations

import ctypes
import random
import sys
from typing import Any

import numpy as np
from numpy.random import MT19937

from dqn_runner.core.state import State
from dqn_runner.envs.generator_states import restore_states, stored_states

NAMES = ("random", "numpy", "torch")
_MT19937_BYTES = 2500
"""Size of the state of MT19937: 624 words, and the position in them."""

_numpy: Any = np.random
"""Its stubs lack the functions for bit generators."""

Used = tuple[str, ...] | None
"""The generators that an environment is known to use; None before the end of its first episode."""


class OwnGenerators:
    """States of all global generators that are in effect within a `with` block only.

    A later block continues where the last one ended. After a block, the generators are as they were before.
    """

    def __init__(self, seed: int) -> None:
        """The first block starts with the generators seeded by `seed`."""
        self._seed = seed
        self._own: tuple[Any, ...] | None = None
        self._outer: tuple[Any, ...] = ()
        self._depth = 0

    def __enter__(self) -> None:
        """Put the own states into effect; within another block of this object, they already are."""
        self._depth += 1
        if self._depth > 1:
            return
        self._outer = _get_states()
        if self._own is None:
            _seed_all(self._seed)
        else:
            _set_states(self._own)

    def __exit__(self, *_: object) -> None:
        """Keep the own states for the next block."""
        self._depth -= 1
        if self._depth == 0:
            self._own = _get_states()
            _set_states(self._outer)

    def state_dict(self) -> State:
        """The own states."""
        with self:
            return stored_states()

    def load_state_dict(self, state: State) -> None:
        """Restore the own states; raises ValueError if they cannot be states of the generators."""
        with self:
            restore_states(state)


class EpisodeGenerators:
    """Gives the episodes of one environment their own states of the generators that it uses.

    To swap a state takes microseconds at each step, and few environments need it. So the first episode has
    its own state of every generator, and later episodes of those that an episode was seen to use. The other
    generators are only compared, at the end of each episode, with the state that a replay starts from.
    """

    def __init__(self, seed: int) -> None:
        """`seed` determines the state of generators that are not known to be used."""
        self._seed = seed
        self._used: Used = None
        self._states: list[_State] = []
        self._begin_marks: dict[str, Any] = {}
        self._common_marks: dict[str, Any] = {}
        self.active = False
        """Whether the open episode has own states, so that its calls need a `with` block."""

    def restart(self, seed: int, used: Used) -> None:
        """Begin to replay an episode: its seed, and what was known when it began."""
        _seed_all(self._seed)
        self._common_marks = {name: _mark(name) for name in NAMES}
        self.begin_episode(seed, used)

    def begin_episode(self, seed: int, used: Used) -> None:
        """Seed the own states for an episode whose reset follows."""
        names = NAMES if used is None else used
        if self._used != used or not self._states:
            self._states = [_STATES[name]() for name in names]
        self._used, self.active = used, bool(self._states)
        for state in self._states:
            state.seed(seed)
        self._begin_marks = {state.name: state.mark() for state in self._states} if used is None else {}

    def end_episode(self) -> tuple[str, ...]:
        """The generators that the environment is known to use, after an episode."""
        if self._used is None:
            return tuple(s.name for s in self._states if s.mark() != self._begin_marks[s.name])
        moved = self.moved()
        return tuple(name for name in NAMES if name in self._used or name in moved) if moved else self._used

    def moved(self) -> tuple[str, ...]:
        """The generators without an own state that were used since the last restart."""
        own = NAMES if self._used is None else self._used
        return tuple(name for name in NAMES if name not in own and _mark(name) != self._common_marks[name])

    def __enter__(self) -> None:
        """Put the own states into effect, for one call of the environment."""
        for state in self._states:
            state.swap_in()

    def __exit__(self, *_: object) -> None:
        """Keep the own states, and restore the others."""
        for state in self._states:
            state.swap_out()


def _get_states() -> tuple[Any, ...]:
    torch = _torch()
    bit_generator = _numpy.get_bit_generator()
    numpy_state = _numpy.get_state(legacy=False)  # with the cached normal variate of the legacy generator
    return random.getstate(), bit_generator, numpy_state, torch and torch.get_rng_state()


def _set_states(states: tuple[Any, ...]) -> None:
    python_state, bit_generator, numpy_state, torch_state = states
    random.setstate(python_state)
    _numpy.set_bit_generator(bit_generator)
    _numpy.set_state(numpy_state)
    torch = _torch()
    if torch and torch_state is not None:
        torch.set_rng_state(torch_state)


def _seed_all(seed: int) -> None:
    random.seed(seed)
    _numpy.set_bit_generator(MT19937(seed))
    torch = _torch()
    if torch:
        torch.default_generator.manual_seed(seed)


def _torch() -> Any:
    """Torch, or None: an environment in its own process may do without it."""
    return sys.modules.get("torch")


def _mark(name: str) -> Any:
    """A value that changes when the global generator `name` is used."""
    if name == "random":
        return _python_mark()
    if name == "numpy":
        return _numpy_mark(_numpy.get_bit_generator())
    torch = _torch()
    return torch and torch.get_rng_state().numpy().tobytes()


def _words_of_python() -> bytes:
    """The memory of Python's global generator: the position, and 624 words."""
    return ctypes.string_at(id(random.random.__self__) + object.__basicsize__, _MT19937_BYTES)


def _is_layout_known() -> bool:
    words = random.getstate()[1]
    return _words_of_python() == np.array([words[-1], *words[:-1]], np.uint32).tobytes()


def _python_mark() -> Any:
    """Its memory, because `getstate` takes 20 us; its state in an interpreter that stores it differently."""
    return _words_of_python() if _LAYOUT_IS_KNOWN else random.getstate()


def _numpy_mark(bit_generator: Any) -> Any:
    """The memory of an MT19937, because its `state` takes 60 us to read."""
    if isinstance(bit_generator, MT19937):
        return ctypes.string_at(bit_generator.ctypes.state_address, _MT19937_BYTES)
    return repr(bit_generator.state)


class _PythonState:
    """An own state of Python's global generator."""

    name = "random"

    def seed(self, seed: int) -> None:
        self._own = random.Random(seed).getstate()

    def mark(self) -> Any:
        return self._own

    def swap_in(self) -> None:
        self._outer = random.getstate()
        random.setstate(self._own)

    def swap_out(self) -> None:
        self._own = random.getstate()
        random.setstate(self._outer)


class _NumpyState:
    """An own bit generator below numpy's global functions.

    A swap drops the second of the two normal variates that the legacy generator draws at once.
    """

    name = "numpy"

    def __init__(self) -> None:
        self._own: Any = MT19937(0)

    def seed(self, seed: int) -> None:
        if not isinstance(self._own, MT19937):  # the environment has replaced it
            self._own = MT19937(0)
        np.random.RandomState(self._own).seed(seed)

    def mark(self) -> Any:
        return _numpy_mark(self._own)

    def swap_in(self) -> None:
        self._outer = _numpy.get_bit_generator()
        _numpy.set_bit_generator(self._own)

    def swap_out(self) -> None:
        self._own = _numpy.get_bit_generator()
        _numpy.set_bit_generator(self._outer)


class _TorchState:
    """An own state of torch's global generator of the CPU; nothing as long as torch is not imported."""

    name = "torch"
    _own: Any = None
    _outer: Any = None

    def seed(self, seed: int) -> None:
        torch = _torch()
        self._own = torch and torch.Generator().manual_seed(seed).get_state()

    def mark(self) -> Any:
        return None if self._own is None else self._own.numpy().tobytes()

    def swap_in(self) -> None:
        torch = _torch()
        self._outer = torch and torch.get_rng_state()
        if self._own is not None:
            torch.set_rng_state(self._own)

    def swap_out(self) -> None:
        torch = _torch()
        self._own = torch and torch.get_rng_state()
        if self._outer is not None:
            torch.set_rng_state(self._outer)


_LAYOUT_IS_KNOWN = sys.implementation.name == "cpython" and _is_layout_known()
_State = _PythonState | _NumpyState | _TorchState
_STATES: dict[str, type[_State]] = {
    "random": _PythonState,
    "numpy": _NumpyState,
    "torch": _TorchState,
}
