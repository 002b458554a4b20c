"""The program that compiles an update; `library` runs it in a process of its own.

It reads the length of a request in 8 bytes, and the request: a pickled pair of an `UpdateProgram` and the
path of the library to write, in a folder of its own. If its standard input closes before it has finished, the
process that wanted the library has ended: it deletes the folder, and stops.
"""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import threading
import warnings
from pathlib import Path

from dqn_runner.agent.compiled.program import UpdateProgram
from dqn_runner.agent.learner import LearnerState
from dqn_runner.agent.networks.modules.flat_network import FlatNetwork
from dqn_runner.core.lazy_imports import torch

QUICKER = {"aot_inductor.precompile_headers": False, "cpp.vec_isa_ok": True}
"""Options of torch, where it has them, that halve the time of a build and leave the library as it is.

Headers are not compiled on their own, since each is used once. That the compiler has AVX2 or AVX-512, if the
processor has them, is not tried out first with a program that includes all of torch's vectors.
"""


def build(program: UpdateProgram, output: str) -> None:
    """Compile `program` and write the library."""
    import torch._inductor as inductor

    warnings.simplefilter("ignore")  # of torch, about torch
    torch.set_num_threads(program.threads)
    config = program.config
    spec = config.spec()
    network = FlatNetwork(config.network.build(spec, config.loss.outputs_per_action), spec.layout)
    params = network.initial
    state = LearnerState(params, config.optimizer.init(params), network.views)
    graph, inputs = program.trace(network, state)
    exported = torch.export.export(graph, inputs)
    options = {"aot_inductor.output_path": output, "cpp.threads": program.threads}
    known = inductor.list_options()
    inductor.aot_compile(
        exported.module(), inputs, options=options | {k: v for k, v in QUICKER.items() if k in known}
    )


def main() -> None:
    """Answer one request."""
    stream = sys.stdin.buffer
    program, output = pickle.loads(stream.read(int.from_bytes(stream.read(8), "big")))
    threading.Thread(target=_stop_with_stdin, args=[Path(output).parent], daemon=True).start()
    build(program, output)


def _stop_with_stdin(folder: Path) -> None:
    sys.stdin.buffer.read()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    main()
    os._exit(0)  # the thread still reads
