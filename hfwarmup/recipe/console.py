"""What a recipe says while it runs: one plain line a fact, from rank 0 only."""

from __future__ import annotations

import gc
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import datasets
import torch.distributed as dist
import transformers
from tqdm.auto import tqdm

from hfwarmup.trainer.launch_check import check_launch
from hfwarmup.trainer.running import is_rank_zero


def speak_from_rank_zero() -> None:
    """Show this package's log from rank 0, and of the libraries only what is an error; the other ranks are silent.

    The first that is said is where the launch is not what was asked for. Call it when the arguments are parsed.
    """
    logger = logging.getLogger("hfwarmup")
    handler = BesideBars()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO if is_rank_zero() else logging.ERROR)
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()  # of saving and loading weights; the Trainer's own stays
    if not is_rank_zero():
        datasets.disable_progress_bars()
        transformers.utils.logging.set_verbosity_error()
        warnings.simplefilter("ignore")
    check_launch()


class BesideBars(logging.StreamHandler):
    """Writes lines to stderr without tearing the progress bars that are shown."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=self.stream)


def run_recipe(main: Callable[[], None]) -> None:
    """Run a recipe, and leave the process group when it is done. An error that this package raises for its user ends it
    with one line and status 1; any other error keeps its traceback.
    """
    try:
        main()
    except (ValueError, ArithmeticError, RuntimeError) as error:
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        if not raised_in.is_relative_to(Path(__file__).parents[1]):
            raise
        _end_with(error)
    leave_process_group()


def _end_with(error: Exception) -> NoReturn:
    """One line, from every rank: the launcher stops the others when the first one ends, whoever that is."""
    rank = int(os.environ.get("RANK", "0"))
    line = f"error on rank {rank}: {error}" if rank else f"error: {error}"
    if not dist.is_initialized():
        sys.exit(line)
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
    os._exit(1)  # the traceback holds the model, whose reducer may hang at exit: see leave_process_group


def leave_process_group() -> None:
    """Destroy the process group, if there is one: without it a rank now and then aborts at exit.

    A model in DistributedDataParallel must be gone before, which it is when `main` has returned. If its reducer is the
    last to hold the group, it joins gloo's threads under the interpreter's lock, and they may be waiting for that lock
    to free a tensor: the rank hangs for ever (torch 2.13).
    """
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()
