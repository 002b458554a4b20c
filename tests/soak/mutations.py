"""What the fuzzer does to the directory of a run: damaged bytes, forged contents, odd directory entries."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import socket
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dqn_runner.checkpointing.format import SNAPSHOT, checksum

Mutation = Callable[[Path, random.Random], str]
"""Changes the run directory; returns what it did."""

WRONG: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        -(2**70),
        2**63,
        2**200,
        float("nan"),
        float("inf"),
        "",
        "x" * 10_000,
        "../../x",
        "a\nb\0",
    ),
    *([], {}, [[]], {"a": {"b": []}}),
)


FREE = ("columns", "uinteger", "has_uint32")


def files_of(run_dir: Path, pattern: str) -> list[Path]:
    """The regular files in a run directory that match, in a fixed order."""
    return sorted(path for path in run_dir.rglob(pattern) if path.is_file() and not path.is_symlink())


def damage_bytes(run_dir: Path, rng: random.Random) -> str:
    """Cut, flip, blank, insert or swap in a checkpoint, segment or run.json, under one or all names."""
    path = rng.choice(files_of(run_dir, rng.choice(["*.pt", "*.npz", "*.json"])) or [run_dir / "new"])
    data = bytearray(path.read_bytes() if path.exists() else b"")
    at, kind = rng.randrange(len(data) + 1), rng.choice(["cut", "flip", "blank", "insert", "empty", "swap"])
    if kind == "cut":
        del data[at:]
    elif kind == "flip" and data:
        data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
    elif kind == "blank":
        data[at : at + 64] = bytes(len(data[at : at + 64]))
    elif kind == "insert":
        data[at:at] = rng.randbytes(rng.choice([1, 100]))
    elif kind == "empty":
        data.clear()
    elif others := files_of(run_dir, f"*{path.suffix}"):
        data = bytearray(rng.choice(others).read_bytes())
    if rng.random() < 0.5 and path.exists():
        path.unlink()  # else a hard link changes under all of its names
    path.write_bytes(data)
    return f"{kind} {path.name} at {at}"


def places(value: Any, depth: int = 30) -> Iterator[tuple[Any, Any]]:
    """Every (container, key or index) in a document, which an earlier mutation may have made endless."""
    if isinstance(value, dict | list) and depth:
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            if isinstance(value, dict) and (key in FREE or "inc" in value):
                continue  # names of columns, and numbers of generators, of which any may be right
            yield value, key
            yield from places(value[key], depth - 1)


def forge_document(run_dir: Path, rng: random.Random) -> str:
    """Change some values of a checkpoint, and write it with a valid checksum under all of its names."""
    found = files_of(run_dir / "checkpoints", "*.pt")
    if not found:
        return "nothing to forge"
    path = rng.choice(found)
    try:
        document = torch.load(path, weights_only=True)
        assert isinstance(document, dict)
    except Exception:
        return "nothing to forge"
    done = [_forge(document, rng) for _ in range(rng.choice([1, 1, 1, 2]))]
    if (places_left := list(places(document))) and rng.random() < 0.05:
        done.append("alias")
        container, key = rng.choice(places_left)
        container[key] = rng.choice([container, [container] * 2, [[[0]] * 9] * 9])
    document.pop("checksum", None)
    try:
        document["checksum"] = checksum(document)
    except Exception:
        document["checksum"] = "0" * 32
    content = io.BytesIO()
    torch.save(document, content)
    data = content.getvalue()
    if rng.random() < 0.1:
        data = deflated(data)
        done.append("compressed")
    path.write_bytes(data)
    return f"forge {path.name}: {'; '.join(done)}"


def _forge(document: dict[str, Any], rng: random.Random) -> str:
    found = list(places(document))
    if not found:
        return "nothing to forge"
    top = [document, document.get("state"), document.get("source")]
    shallow = [(c, k) for c, k in found if any(c is each for each in top)]
    container, key = rng.choice(shallow if shallow and rng.random() < 0.2 else found)
    old = container[key]
    kind = rng.choice(["wrong", "wrong", "remove", "add"])
    if kind == "remove":
        del container[key]
    elif kind == "add" and isinstance(container, dict):
        container["unknown"] = rng.choice(WRONG)
    elif isinstance(old, torch.Tensor):
        container[key] = wrong_array(old, rng)
    else:
        container[key] = rng.choice(WRONG)
    return f"{kind} {key!r} (was {old!r:.60})"


def wrong_array(array: torch.Tensor, rng: random.Random) -> Any:
    """An array that the same place cannot hold."""
    kind = rng.randrange(9)
    if kind == 0:
        return torch.zeros(1, dtype=array.dtype).expand(10**12)
    if kind == 1:
        return torch.empty(10**9, 10**4, device="meta")
    if kind == 2:
        return torch.eye(3).to_sparse()
    if kind == 3:
        return array.to(torch.float16 if array.dtype != torch.float16 else torch.int8)
    if kind == 4:
        return array.reshape(1, *array.shape)
    if kind == 5:
        return torch.nn.Parameter(array.float())
    if kind == 6 and array.dim():
        return torch.cat([array, array, array])
    if kind == 7 and array.dtype == torch.float32 and array.numel() > 20:  # those of the learner
        return torch.full_like(array, float("nan"))
    return torch.full_like(array, -7) if array.dtype in (torch.int64, torch.int32) else [array]


def deflated(data: bytes) -> bytes:
    """The same archive, compressed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    return out.getvalue()


def forge_segment(run_dir: Path, rng: random.Random) -> str:
    """Replace a segment by another with a valid name, and name it in a forged checkpoint."""
    path = run_dir / "checkpoints" / rng.choice(["latest.pt", "latest.pt", "best.pt"])
    if not path.is_file():  # an earlier mutation may have put a pipe there
        return "nothing to forge"
    try:
        document = torch.load(path, weights_only=True)
        stored = [v for c, k in places(document) if isinstance(v := c[k], dict) and SNAPSHOT in v]
        rows = rng.choice([each for each in stored if each["segments"]])
        entry = rng.choice(rows["segments"])
        old = run_dir / "checkpoints" / "segments" / entry[2]
        assert old.is_file()
        columns = dict(np.load(io.BytesIO(old.read_bytes())))
    except Exception:
        return "nothing to forge"
    name = rng.choice(sorted(columns))
    column = columns[name]
    if not isinstance(column, np.ndarray):  # an earlier mutation damaged the file
        return "nothing to forge"
    kind = rng.randrange(6)
    kind = 0 if kind == 3 and name not in ("action", "discount") else kind  # 99 may be a right reward
    wrong = [column[:-1], column.astype("f2"), column[None], np.full_like(column, 99), column.astype(object)]
    columns[name] = [*wrong, column][kind]
    content = io.BytesIO()
    (np.savez if rng.random() < 0.8 else np.savez_compressed)(content, **columns)
    data = content.getvalue()
    if kind == 5:
        data = data.replace(b"'shape': (", b"'shape': (9", 1)
    entry[2] = f"{entry[2][:26]}{hashlib.blake2b(data, digest_size=16).hexdigest()}.npz"
    if rng.random() < 0.3:
        entry[rng.randrange(3)] = rng.choice(WRONG)
    elif rng.random() < 0.3:
        rows["segments"].remove(entry)
    name = str(entry[2]).replace("/", "").replace("\0", "")[-60:]
    (old.parent / (name.strip(".") or "new")).write_bytes(data)
    document.pop("checksum")
    try:
        document["checksum"] = checksum(document)
    except RecursionError:  # an earlier mutation made it endless
        return "nothing to forge"
    torch.save(document, path)
    return f"forge the column {name} of a segment ({kind})"


def forge_run_json(run_dir: Path, rng: random.Random) -> str:
    """Well-formed JSON with nonsense inside."""
    path = run_dir / "run.json"
    if not path.is_file():
        return "nothing to forge"
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return "nothing to forge"
    found = [(c, k) for c, k in places(document) if c is document or rng.random() < 0.1]
    if not isinstance(document, dict) or not found or rng.random() < 0.2:
        path.write_text(rng.choice(["[]", "null", "3", '"x"', "{}", "[" * 100_000, '{"config": 1}', "NaN"]))
        return "replace run.json"
    container, key = rng.choice(found)
    container[key] = rng.choice(WRONG)
    path.write_text(json.dumps(document))
    return f"forge {key} of run.json"


NAMES = (
    *("latest.pt", "best.pt", "best_0000000040.pt", "checkpoint_0000000040.pt", "checkpoint_²³.pt"),
    *("latest.pt.tmp", "best.pt.tmp", "damaged_best.pt", f"checkpoint_{'9' * 200}.pt", "segments", "x.pt"),
    *("checkpoint_-1.pt", "superseded_checkpoint_0000000040.pt", "checkpoint_0000000080.pt.tmp"),
)
PLACES = (*("metrics.jsonl", "run.json", "metrics.json", ".lock", "logs", "checkpoints"),)


def odd_entry(run_dir: Path, rng: random.Random) -> str:
    """Put a link, directory, pipe or socket in the place of a file or a directory."""
    path = run_dir / rng.choice(PLACES)
    if rng.random() < 0.7:
        path = run_dir / "checkpoints" / rng.choice(NAMES)
    if rng.random() < 0.2 and (found := files_of(run_dir, "*.npz")):
        path = rng.choice(found)
    if not path.parent.is_dir():
        return "nowhere"
    if os.path.lexists(path):
        path.rename(run_dir.parent / f"removed{rng.randrange(10**9)}")
    kind = rng.choice(["dir", "full dir", "fifo", "socket", "loop", "dangling", "outside", "inside", "empty"])
    if kind.endswith("dir"):
        path.mkdir()
        if kind == "full dir":
            (path / "precious").write_text("kept")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        here = Path.cwd()
        os.chdir(path.parent)  # the path of a socket is short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name[:100])
        os.chdir(here)
    elif kind == "empty":
        path.touch()
    else:
        targets = {
            "loop": path,
            "dangling": run_dir.parent / "outside" / "nothing",
            "outside": run_dir.parent / "outside" / "file",
            "inside": run_dir / "checkpoints" / "checkpoint_0000000080.pt",
        }
        path.symlink_to(targets[kind])
    return f"{kind} at {path.name[:60]}"


MUTATIONS: tuple[tuple[int, Mutation], ...] = (
    (3, damage_bytes),
    (6, forge_document),
    (2, forge_segment),
    (1, forge_run_json),
    (4, odd_entry),
)
