"""Pretrain a small BERT-like encoder from scratch by masked language modeling, with a named warmup schedule.

    ./launch.sh pretrain_mlm --config configs/pretrain_mlm/stdlib.yaml [--key value …]

A script to copy and change: arguments, data, model, plan, training, results, in this order. The encoder that it leaves
in its run folder is what finetune_classification.py starts from.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

import hfwarmup
from hfwarmup.planning.arguments import DataArguments, ModelArguments, WarmupArguments
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.recipe.baselines import unigram_loss
from hfwarmup.recipe.console import run_recipe, speak_from_rank_zero
from hfwarmup.recipe.data import IGNORED_LABEL, prepare_data
from hfwarmup.recipe.model import build_model
from hfwarmup.recipe.parsing import parse_arguments
from hfwarmup.recipe.precision import settle_compile
from hfwarmup.recipe.run import finish_run, train_to_end
from hfwarmup.recipe.run_config import KeepConfig
from hfwarmup.run_folder.checkpoints import find_checkpoint
from hfwarmup.trainer.monitor import watch_warmup
from hfwarmup.trainer.non_finite import NonFiniteGuard
from hfwarmup.trainer.planning import plan_training, planned_arguments
from hfwarmup.trainer.recorder import RunRecorder
from hfwarmup.trainer.replan import Replan
from hfwarmup.trainer.tracking import track_plan

logger = logging.getLogger("hfwarmup.recipe")

SPECIAL_TOKENS = {"mask_token": "<|mask|>", "pad_token": "<|pad|>"}


@dataclass(kw_only=True)
class MaskingArguments:
    """What is masked, and on how many blocks it is evaluated."""

    mlm_probability: float = field(default=0.15, metadata={"help": "share of the tokens that are to be predicted"})
    eval_blocks: int = field(default=512, metadata={"help": "validation blocks, evenly spaced; 0: all of them"})


class MaskedBlocks(torch.utils.data.Dataset):
    """Blocks with some tokens masked, anew in each epoch: a function of the seed, the epoch and the block's index.

    No state is used up, so a resumed run sees the masks that the stopped one would have seen, any number of processes
    sees the same ones, and validation blocks, whose epoch stays 0, are masked alike in every evaluation.
    """

    def __init__(self, blocks: Dataset, tokenizer: PreTrainedTokenizerBase, mlm_probability: float, seed: int) -> None:
        self.blocks, self.seed = blocks, seed
        self.masking = DataCollatorForLanguageModeling(tokenizer, mlm_probability=mlm_probability)
        self.special_ids = torch.tensor(tokenizer.all_special_ids)
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # shared with the DataLoader's workers

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        block = self.blocks[index]
        kept = torch.isin(block["input_ids"], self.special_ids) | (block["labels"] == IGNORED_LABEL)
        entropy = np.random.SeedSequence([self.seed, int(self.epoch), index])
        self.masking.generator = torch.Generator().manual_seed(int(entropy.generate_state(1)[0]))
        input_ids, labels = self.masking.torch_mask_tokens(block["input_ids"].clone(), special_tokens_mask=kept)
        return {"input_ids": input_ids, "labels": labels}


class NewMasksEachEpoch(TrainerCallback):
    """Tells the training blocks which epoch it is."""

    def __init__(self, blocks: MaskedBlocks) -> None:
        self.blocks = blocks

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.blocks.epoch.fill_(int(state.epoch or 0))


ARGUMENTS = (ModelArguments, DataArguments, MaskingArguments, WarmupArguments, RecipeArguments)


def main() -> None:
    # 1. Arguments: the YAML file of --config, then flags.
    hfwarmup.register()
    model_args, data_args, masking_args, warmup_args, args = parse_arguments(*ARGUMENTS)
    speak_from_rank_zero()
    checkpoint = find_checkpoint(args.output_dir, args.resume)
    set_seed(args.seed)

    # 2. Data: tokenized once, packed into blocks without losing a token, masked when a block is read.
    seed = args.data_seed or 0
    data = prepare_data(data_args, seed=seed, special_tokens=SPECIAL_TOKENS, main_process_first=args.main_process_first)
    data.tokenizer.model_max_length = data_args.block_size
    num_eval = min(masking_args.eval_blocks or len(data.validation), len(data.validation))
    evaluated = data.validation.select(np.linspace(0, len(data.validation) - 1, num_eval, dtype=int))
    train, validation = (
        MaskedBlocks(blocks, data.tokenizer, masking_args.mlm_probability, seed) for blocks in (data.train, evaluated)
    )

    # 3. Model: a checkpoint, or a new one from a config.
    model = build_model(AutoModelForMaskedLM, model_args, data.tokenizer, data_args.block_size)
    model.config.pad_token_id = data.tokenizer.pad_token_id
    size = f"{model.num_parameters() / 1e6:.1f}M parameters"
    logger.info(
        "%s, %s; %d training blocks of %d tokens", model.config.model_type, size, len(train), data_args.block_size
    )
    logger.info("%s", args.precision_reason)

    # 4. Plan: peak learning rate and warmup at the real global batch; then whether compiling pays.
    sizes = {"num_samples": len(train), "tokens_per_sample": data_args.block_size}
    plan = plan_training(args, warmup_args, checkpoint=checkpoint, **sizes)
    planned = planned_arguments(args, warmup_args, plan)
    logger.info("%s", plan)
    sample = default_data_collator([train[i] for i in range(min(args.train_batch_size, len(train)))])
    logger.info("%s", settle_compile(planned, model, sample, total_steps=plan.total_steps))

    # 5. Training.
    replan = Replan(args, warmup_args, **sizes)
    trainer = Trainer(
        model=model,
        args=planned,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=data.tokenizer,
        data_collator=default_data_collator,
        callbacks=[NewMasksEachEpoch(train), replan, NonFiniteGuard(), RunRecorder(), KeepConfig()],
    )
    watch_warmup(trainer)
    track_plan(trainer)
    train_metrics = train_to_end(trainer, checkpoint, total_steps=plan.total_steps)

    # 6. Results: model, metrics, pictures.
    metrics = trainer.evaluate()
    nats, targets = metrics["eval_loss"], (validation[index]["labels"].numpy() for index in range(len(validation)))
    metrics["eval_bits_per_masked_token"] = nats / math.log(2)
    metrics["eval_baseline_loss"] = unigram = unigram_loss(data.train, targets, len(data.tokenizer))
    finish_run(
        trainer,
        train_metrics=train_metrics,
        eval_metrics=metrics,
        summary=f"validation loss {nats:.3f} nats ({nats / math.log(2):.2f} bits) a masked token; "
        f"token frequencies alone give {unigram:.3f} nats, a uniform guess {math.log(len(data.tokenizer)):.2f}",
    )


if __name__ == "__main__":
    run_recipe(main)
