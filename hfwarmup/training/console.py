"""What a recipe says while it runs: one plain line a fact, from rank 0 only."""

from __future__ import annotations

import logging
import warnings

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
    if not is_rank_zero():
        transformers.utils.logging.set_verbosity_error()
        warnings.simplefilter("ignore")
