"""What a recipe says while it runs: one plain line a fact, from rank 0 only."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import datasets
import transformers

from hfwarmup.training.callbacks import is_rank_zero


def speak_from_rank_zero() -> None:
    """Show this package's log from rank 0, and of the libraries only what is an error; the other ranks are silent."""
    logger = logging.getLogger("hfwarmup")
    handler = logging.StreamHandler()
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


def run_recipe(main: Callable[[], None]) -> None:
    """Run a recipe. An error that this package raises for its user ends it with one line and status 1; any other error
    keeps its traceback.
    """
    try:
        main()
    except (ValueError, ArithmeticError, RuntimeError) as error:
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        if not raised_in.is_relative_to(Path(__file__).parents[1]):
            raise
        sys.exit(f"error: {error}" if is_rank_zero() else 1)
