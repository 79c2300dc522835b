"""Answers that need no training, where they are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from datasets import Dataset

from hfwarmup.recipe.baselines import next_token_targets, unigram_loss
from hfwarmup.recipe.data import pack


def test_tokens_in_turn_are_a_coin_toss_and_the_smoothing():
    """Tokens 10 and 11 in turn, 8 of 320 entries counted (plus one each): both have p = 5 / 328."""
    blocks = pack(Dataset.from_dict({"input_ids": [[10, 11] * 4]}), 8)
    assert unigram_loss(blocks, [np.array([10, 11, -100])], 320) == pytest.approx(math.log(328 / 5), rel=1e-12)


def test_a_token_that_two_blocks_have_is_counted_once():
    """What is left over is a block of the last tokens; those that the block before has too are -100 there."""
    blocks = pack(Dataset.from_dict({"input_ids": [[1, 2, 2, 3, 3]]}), 4)
    losses = [unigram_loss(blocks, [np.array([token])], 4) for token in (0, 1, 2, 3)]
    assert losses == pytest.approx([math.log(9 / n) for n in (1, 2, 3, 3)], rel=1e-12)


def test_a_target_of_a_causal_model_is_each_token_but_the_first_of_a_block():
    blocks = pack(Dataset.from_dict({"input_ids": [[5, 6, 7, 8, 9]]}), 3)
    targets = np.concatenate(list(next_token_targets(blocks))).tolist()
    assert targets == [[6, 7], [8, 9]]  # the second block is 7, 8, 9, where 7 has no label
