"""Chooses the device of a network, and prepares torch to give the same numbers on it each time."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import contextmanager

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch

DEVICE_TYPES = ("cpu", "cuda", "mps")
_NAMES = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_UNREPEATABLE = re.compile(r"(\S+) does not have a deterministic implementation")
"""How torch begins the error that `use_deterministic_algorithms` raises."""
WORTH_MULTIPLICATIONS = 200_000_000
"""Products of a batch with the parameters (batch size times parameters) from which `auto` takes CUDA for a
network without convolutions: a smaller update takes less time on a CPU than a GPU needs to start it."""


def check_device_name(name: str) -> None:
    """Raise UserError for a name that is not one of a device, whether the machine has it or not."""
    if not _NAMES.fullmatch(name):
        raise UserError(f"device must be auto, cpu, cuda, cuda:N or mps, got {name!r}")


def choose_device(name: str, has_convolutions: bool, multiplications: int) -> torch.device:
    """The device `name`; for `auto` CUDA if the machine has it and the work is large enough, else the CPU.

    `multiplications` is the batch size times the number of parameters. Raises UserError if the machine does
    not have the device.
    """
    if name == "cpu":
        return torch.device("cpu")
    if name == "auto":
        worth = has_convolutions or multiplications >= WORTH_MULTIPLICATIONS
        name = "cuda" if worth and torch.cuda.is_available() else "cpu"
    elif problem := _problem_with(name):
        raise UserError(f"device={name}: {problem}; set device=cpu, or auto to use what is there")
    device = torch.device(name)
    if device.type == "cuda":
        _make_repeatable()
        device = torch.device("cuda", device.index or 0)
    return device


def describe(device: torch.device) -> str:
    """The device with the name of its hardware, for the log."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


@contextmanager
def unrepeatable_as_user_errors(device: torch.device) -> Generator[None]:
    """Within the block, raise UserError for an operation that gives other bytes each time."""
    try:
        yield
    except RuntimeError as error:
        if operation := _UNREPEATABLE.match(str(error)):
            raise UserError(
                f"the network or the loss uses {operation[1]}, which has no deterministic kernel "
                f"on device={device}: a run could not be repeated exactly. Use another operation, or set "
                "device=cpu"
            ) from error
        raise


def _problem_with(name: str) -> str | None:
    """Why torch cannot use the device; None if it can."""
    if name == "mps":
        return None if torch.backends.mps.is_available() else f"torch {torch.__version__} finds no Apple GPU"
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = f"is built for CUDA {built}, but finds no GPU" if built else "is built without CUDA"
        return f"torch {torch.__version__} {why}"
    count = torch.cuda.device_count()
    index = int(name.partition(":")[2] or 0)
    return None if index < count else f"there are {count} GPUs, numbered from 0"


def _make_repeatable() -> None:
    """Use only kernels of CUDA that give the same bytes each time; must come before the first of them."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)
    # Otherwise each new tensor is filled first, by a kernel of its own.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
