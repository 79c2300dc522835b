"""Several processes over gloo on this machine, as a launcher would start them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

from hfwarmup.recipe.console import leave_process_group


def run_on_ranks(function: Callable[[int, Path], Any], folder: Path, *, num_processes: int = 2) -> list[Any]:
    """What `function(rank, folder)`, a module's own, gives on each rank; the folder is common and empty."""
    torch.multiprocessing.spawn(_rank, args=(function, folder, num_processes), nprocs=num_processes)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(num_processes)]


def _rank(rank: int, function: Callable[[int, Path], Any], folder: Path, num_processes: int) -> None:
    torch.set_num_threads(1)
    # accelerate reads its place from the environment; the group it finds made, so no port has to be free.
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_processes, "MASTER_ADDR": "127.0.0.1"}
    os.environ.update({name: str(value) for name, value in places.items()}, MASTER_PORT="0", ACCELERATE_USE_CPU="true")
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=num_processes)
    torch.save(function(rank, folder), folder / f"rank{rank}.pt")
    dist.barrier()
    leave_process_group()
