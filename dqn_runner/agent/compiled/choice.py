"""Decides whether the updates of a run are compiled: by its settings and machine, before its first update.

The decision does not depend on what happens to be in the cache, nor on the time that anything takes, because
the two forms of the update differ in rounding: the same command gives the same bytes.
"""

from __future__ import annotations

from dqn_runner.agent.compiled.library import BuildError, library
from dqn_runner.agent.compiled.program import UpdateProgram, compiler_version
from dqn_runner.agent.compiled.update import CompiledUpdate, load_library
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.log import log

WORTH_UPDATES = 40_000
"""The smallest number of updates for which `auto` compiles: compiling takes 24 s of CPU time, once for all
runs that share the library, and saves 0.7 ms per update of a small MLP."""
LARGE_PARAMETERS = 500_000
"""Networks with more parameters spend their time in products of float32, which compiling does not shorten."""


def choose_update(
    program: UpdateProgram, setting: bool | str, parameters: int, updates: int | None, begun: bool | None
) -> CompiledUpdate | None:
    """The compiled update, or None to run the update operation by operation; logs which, and why.

    `setting` is `agent.compile`. `updates` are those of the whole run, None if its budget does not say how
    many; `begun` is how a resumed run was begun, None for a new one. Raises UserError if a resumed run was
    begun with the compiled update and cannot have it here, and if `setting` demands it of parts that are not
    of this package.
    """
    if setting is False:
        if begun:
            log.warning("this run was begun with compiled updates; from here on it differs in rounding")
        return None
    own = next(program.own_parts(), None)
    if setting is True and own is not None:
        raise UserError(
            f"agent.compile=on compiles the parts of dqn_runner only, not {own}; set agent.compile=off"
        )
    if setting is True and begun is False:
        log.warning("this run was begun without compiled updates; from here on it differs in rounding")
    if setting is not True and not begun:
        if begun is not None:
            return None
        if reason := _not_worth(program, own, parameters, updates):
            log.info("the update is not compiled: %s", reason)
            return None
    try:
        compiler = compiler_version()
        if compiler is None:
            raise BuildError("the C++ compiler g++ is missing; install it, or set compile=off")
        run = load_library(library(program, program.key(compiler)))
        update = CompiledUpdate(run, program.config.optimizer)
    except BuildError as error:
        if begun:
            raise UserError(
                f"this run was begun with the compiled update, which cannot be had here: {error}. With "
                "compile=off it resumes without, not byte for byte"
            ) from error
        log.warning("the update is not compiled: %s", error)
        return None
    log.info("the update is compiled")
    return update


def _not_worth(program: UpdateProgram, own: str | None, parameters: int, updates: int | None) -> str | None:
    """Why `agent.compile=auto` does not compile; None if it does."""
    if own is not None:
        return f"{own} is not a part of dqn_runner"
    if updates is None:
        return "trainer.max_steps is not set, so the number of updates is unknown"
    if updates < WORTH_UPDATES:
        return f"{updates:,} updates do not pay for it, {WORTH_UPDATES:,} do; compile=on does it anyway"
    if parameters > LARGE_PARAMETERS and program.config.precision == "float32":
        return f"it would not make a network of {parameters:,} parameters faster"
    return None
