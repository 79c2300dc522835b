"""Pretrain a small causal language model from scratch, with a named warmup schedule.

    ./launch.sh pretrain_clm --config configs/pretrain_clm/stdlib.yaml [--key value …]

A script to copy and change. Its steps: arguments, data, model, plan, training, results.
"""

from __future__ import annotations

from transformers import AutoModelForCausalLM, Trainer, default_data_collator

from hfwarmup.recipe import (
    DataArguments,
    ModelArguments,
    RecipeArguments,
    Run,
    WarmupArguments,
    build_model,
    describe_language_model,
    parse_arguments,
    prepare_data,
    run_recipe,
)

ARGUMENTS = (ModelArguments, DataArguments, WarmupArguments, RecipeArguments)
FACTS = {"tokens_per_sample": "block_size", "trainer": True}


def main() -> None:
    # 1. Arguments: the YAML file of --config, then flags, which win.
    model_args, data_args, warmup_args, args = parse_arguments(*ARGUMENTS)
    run = Run(args, warmup_args)

    # 2. Data: tokenized once, by the first rank, and packed into blocks without losing a token.
    data = prepare_data(data_args, seed=args.data_seed or 0, main_process_first=args.main_process_first)

    # 3. Model: a checkpoint, or a new one from a config.
    model = build_model(AutoModelForCausalLM, model_args, data.tokenizer, data_args.block_size)

    # 4. Plan: peak learning rate and warmup at the real global batch; then whether compiling pays.
    planned = run.plan(model, data.train, tokens_per_sample=data_args.block_size)

    # 5. Training.
    trainer = Trainer(
        model=model,
        args=planned,
        train_dataset=data.train,
        eval_dataset=data.validation,
        processing_class=data.tokenizer,
        data_collator=default_data_collator,
    )
    run.train(trainer)

    # 6. Results: model, metrics, pictures.
    metrics = trainer.evaluate()
    more_metrics, summary = describe_language_model(metrics["eval_loss"], data)
    run.finish(trainer, metrics | more_metrics, summary=summary)


if __name__ == "__main__":
    run_recipe(main)
