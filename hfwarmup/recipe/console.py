"""What a recipe shows while it runs: one plain line a fact, from rank 0 only; and how it ends."""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import datasets
import huggingface_hub.constants
import torch.distributed as dist
import transformers
from tqdm.auto import tqdm

from hfwarmup.errors import UserError
from hfwarmup.trainer.launch_check import check_launch
from hfwarmup.trainer.running import is_rank_zero


def setup_logging() -> None:
    """Show the log of this package from rank 0, and of other libraries only their errors. Other ranks show errors only.

    It also warns where the launch differs from the request. Call it after the arguments are parsed; `Run` does.
    """
    logger = logging.getLogger("hfwarmup")
    handler = BesideBars()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO if is_rank_zero() else logging.ERROR)
    _quiet_libraries()
    check_launch()


def _quiet_libraries() -> None:
    """The only place where a recipe changes settings of other libraries for the whole process."""
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()  # of loading and saving weights; the Trainer's own bar stays
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True  # TRL reports each new trainer to the hub
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft reads it from transformers
    if not is_rank_zero():
        datasets.disable_progress_bars()
        transformers.utils.logging.set_verbosity_error()
        warnings.simplefilter("ignore")


@contextmanager
def without_dataset_bars() -> Iterator[None]:
    """Hide the progress bars of `datasets` for a while, for a Trainer that makes several passes over its data.

    >>> with without_dataset_bars():
    ...     datasets.are_progress_bars_disabled()
    True
    """
    hidden_before = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden_before:
            datasets.enable_progress_bars()


class BesideBars(logging.StreamHandler):
    """Writes lines to stderr without breaking the progress bars that are shown."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=self.stream)


def run_recipe(main: Callable[[], None]) -> None:
    """Run the `main` of a recipe, and destroy the process group when it is done.

    A UserError ends the process with one line a finding and status 1. Any other error keeps its traceback.
    """
    try:
        main()
    except UserError as error:
        _end_with(error)
    leave_process_group()


def _end_with(error: UserError) -> NoReturn:
    """The findings of every rank: the launcher stops the others when the first rank ends, whichever it is."""
    rank = int(os.environ.get("RANK", "0"))
    text = error.report(f"error on rank {rank}" if rank else "error")
    if not dist.is_initialized():
        sys.exit(text)
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
    os._exit(1)  # the traceback holds the model, whose reducer may hang at exit: see leave_process_group


def leave_process_group() -> None:
    """Destroy the process group, if there is one. Without this a rank sometimes aborts at exit.

    A model in DistributedDataParallel must be gone before, which it is when `main` has returned. When its reducer is
    the last to hold the group, it joins gloo's threads while it holds the interpreter's lock. These threads may wait
    for that lock to free a tensor: the rank then hangs for ever (torch 2.13).
    """
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()
