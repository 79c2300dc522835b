"""Pretrain a small BERT-like encoder from scratch by masked language modeling, with a named warmup schedule.

    ./launch.sh pretrain_mlm --config configs/pretrain_mlm/stdlib.yaml [--key value …]

A script to copy and change. Its steps: arguments, data, model, plan, training, results. finetune_classification.py
starts from the encoder that this recipe leaves in its run folder.
"""

from __future__ import annotations

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
)

from hfwarmup.recipe import (
    IGNORED_LABEL,
    DataArguments,
    ModelArguments,
    Range,
    RecipeArguments,
    Run,
    WarmupArguments,
    build_model,
    parse_arguments,
    prepare_data,
    run_recipe,
    unigram_loss,
)

SPECIAL_TOKENS = {"mask_token": "<|mask|>", "pad_token": "<|pad|>"}


@dataclass(kw_only=True)
class MaskingArguments:
    """How much is masked, and on how many blocks the model is evaluated."""

    mlm_probability: float = field(default=0.15, metadata={"help": "share of the tokens that the model must predict"})
    eval_blocks: int = field(default=512, metadata={"help": "validation blocks, evenly spaced; 0: all of them"})

    def __post_init__(self) -> None:
        Range(0, 1).check("mlm_probability", self.mlm_probability)
        Range(0, whole=True).check("eval_blocks", self.eval_blocks)


class MaskedBlocks(torch.utils.data.Dataset):
    """Blocks with some tokens masked. The masks depend on the seed, the epoch and the block's index, and nothing else.

    So a resumed run sees the masks that the stopped run would have seen, and any number of processes sees the same
    masks. The epoch of validation blocks stays 0: they have the same masks in every evaluation.
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
FACTS = {"tokens_per_sample": "block_size", "trainer": True}


def main() -> None:
    # 1. Arguments: the YAML file of --config, then flags, which win.
    model_args, data_args, masking_args, warmup_args, args = parse_arguments(*ARGUMENTS)
    run = Run(args, warmup_args)

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

    # 4. Plan: peak learning rate and warmup at the real global batch; then whether compiling pays.
    planned = run.plan(model, train, tokens_per_sample=data_args.block_size)

    # 5. Training.
    trainer = Trainer(
        model=model,
        args=planned,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=data.tokenizer,
        data_collator=default_data_collator,
        callbacks=[NewMasksEachEpoch(train)],
    )
    run.train(trainer)

    # 6. Results: model, metrics, pictures.
    metrics = trainer.evaluate()
    nats, targets = metrics["eval_loss"], (validation[index]["labels"].numpy() for index in range(len(validation)))
    metrics["eval_bits_per_masked_token"] = nats / math.log(2)
    metrics["eval_baseline_loss"] = unigram = unigram_loss(data.train, targets, len(data.tokenizer))
    summary = f"validation loss {nats:.3f} nats ({nats / math.log(2):.2f} bits) a masked token; "
    summary += f"token frequencies alone give {unigram:.3f} nats, a uniform guess {math.log(len(data.tokenizer)):.2f}"
    run.finish(trainer, metrics, summary=summary)


if __name__ == "__main__":
    run_recipe(main)
