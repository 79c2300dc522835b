"""Pretrain a small causal language model from scratch, with a named warmup schedule.

    ./launch.sh pretrain_clm --config configs/pretrain_clm/stdlib.yaml [--key value …]

A script to copy and change: arguments, data, model, plan, training, results, in this order.
"""

from __future__ import annotations

import logging
import math

from transformers import AutoModelForCausalLM, Trainer, default_data_collator, set_seed

import hfwarmup
from hfwarmup.planning.arguments import DataArguments, ModelArguments, WarmupArguments
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.recipe.baselines import next_token_targets, unigram_loss
from hfwarmup.recipe.console import run_recipe, speak_from_rank_zero
from hfwarmup.recipe.data import prepare_data
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


ARGUMENTS = (ModelArguments, DataArguments, WarmupArguments, RecipeArguments)


def main() -> None:
    # 1. Arguments: the YAML file of --config, then flags.
    hfwarmup.register()
    model_args, data_args, warmup_args, args = parse_arguments(*ARGUMENTS)
    speak_from_rank_zero()
    checkpoint = find_checkpoint(args.output_dir, args.resume)
    set_seed(args.seed)

    # 2. Data: tokenized once, by the first rank, and packed into blocks without losing a token.
    data = prepare_data(data_args, seed=args.data_seed or 0, main_process_first=args.main_process_first)

    # 3. Model: a checkpoint, or a new one from a config.
    model = build_model(AutoModelForCausalLM, model_args, data.tokenizer, data_args.block_size)
    size = f"{model.num_parameters() / 1e6:.1f}M parameters"
    logger.info(
        "%s, %s; %d training blocks of %d tokens", model.config.model_type, size, len(data.train), data_args.block_size
    )
    logger.info("%s", args.precision_reason)

    # 4. Plan: peak learning rate and warmup at the real global batch; then whether compiling pays.
    sizes = {"num_samples": len(data.train), "tokens_per_sample": data_args.block_size}
    plan = plan_training(args, warmup_args, checkpoint=checkpoint, **sizes)
    planned = planned_arguments(args, warmup_args, plan)
    logger.info("%s", plan)
    sample = default_data_collator([data.train[i] for i in range(min(args.train_batch_size, len(data.train)))])
    logger.info("%s", settle_compile(planned, model, sample, total_steps=plan.total_steps))

    # 5. Training.
    replan = Replan(args, warmup_args, **sizes)
    trainer = Trainer(
        model=model,
        args=planned,
        train_dataset=data.train,
        eval_dataset=data.validation,
        processing_class=data.tokenizer,
        data_collator=default_data_collator,
        callbacks=[replan, NonFiniteGuard(), RunRecorder(), KeepConfig()],
    )
    watch_warmup(trainer)
    track_plan(trainer)
    train_metrics = train_to_end(trainer, checkpoint, total_steps=plan.total_steps)

    # 6. Results: model, metrics, pictures.
    metrics = trainer.evaluate()
    nats, vocab_size = metrics["eval_loss"], len(data.tokenizer)
    metrics["eval_baseline_loss"] = unigram_loss(data.train, next_token_targets(data.validation), vocab_size)
    metrics["eval_perplexity"] = math.exp(min(nats, 700.0))
    metrics["eval_bits_per_byte"] = nats / math.log(2) / data.validation_bytes_per_token
    finish_run(
        trainer,
        train_metrics=train_metrics,
        eval_metrics=metrics,
        summary=f"validation loss {nats:.3f} nats a token, perplexity {metrics['eval_perplexity']:.1f}, "
        f"{metrics['eval_bits_per_byte']:.3f} bits a byte; token frequencies alone give "
        f"{metrics['eval_baseline_loss']:.3f} nats, a uniform guess {math.log(vocab_size):.2f}",
    )


if __name__ == "__main__":
    run_recipe(main)
