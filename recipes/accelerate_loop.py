"""Pretrain the model of pretrain_clm without a Trainer: a raw accelerate loop, with a named warmup schedule.

    ./launch.sh accelerate_loop --config configs/accelerate_loop/stdlib.yaml [--key value …]

A script to copy and change. Its steps: arguments, data, model, plan, training (optimizer, accelerate, loop), results.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from accelerate import Accelerator, skip_first_batches
from accelerate.utils import DataLoaderConfiguration
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, default_data_collator

from hfwarmup import WarmupScheduler
from hfwarmup.recipe import (
    DataArguments,
    Loop,
    ModelArguments,
    RecipeArguments,
    Run,
    WarmupArguments,
    build_model,
    check_followed,
    describe_language_model,
    parse_arguments,
    plan_of,
    prepare_data,
    run_recipe,
    stretch_warmup,
)

# fmt: off
FOLLOWED = {
    "output_dir", "resume", "seed", "data_seed", "precision", "bf16", "fp16", "use_cpu", "torch_compile",
    "torch_compile_backend", "disable_tqdm", "ddp_backend", "ddp_timeout", "max_steps", "num_train_epochs",
    "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "learning_rate",
    "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2",
    "adam_epsilon", "max_grad_norm", "dataloader_drop_last", "dataloader_num_workers", "dataloader_pin_memory",
    "logging_strategy", "logging_steps", "logging_first_step", "eval_strategy", "eval_steps", "eval_delay",
    "save_strategy", "save_steps", "save_total_limit", "do_eval", "warmup_stretch",
}
# fmt: on
"""The settings that this loop follows; any other is an error."""


@dataclass(kw_only=True)
class LoopArguments(RecipeArguments):
    """The arguments of a recipe, and those of this loop."""

    warmup_stretch: dict[str, float] = field(
        default_factory=dict,
        metadata={"help": "regular expression in a parameter's name -> factor of its warmup's length; a map, or JSON"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_followed(self, FOLLOWED)


ARGUMENTS = (ModelArguments, DataArguments, WarmupArguments, LoopArguments)
FACTS = {"tokens_per_sample": "block_size", "trainer": False}


def main() -> None:
    # 1. Arguments: the YAML file of --config, then flags, which win.
    model_args, data_args, warmup_args, args = parse_arguments(*ARGUMENTS)
    run = Run(args, warmup_args)

    # 2. Data: tokenized once, by the first rank, and packed into blocks without losing a token.
    data = prepare_data(data_args, seed=args.data_seed or 0, main_process_first=args.main_process_first)

    # 3. Model: a checkpoint, or a new one from a config.
    model = build_model(AutoModelForCausalLM, model_args, data.tokenizer, data_args.block_size)

    # 4. Plan: peak learning rate and warmup at the real global batch; then whether compiling pays.
    args = run.plan(model, data.train, tokens_per_sample=data_args.block_size)
    if args.torch_compile:
        model.compile()

    # 5. Training. Optimizer and schedule: the groups, with their peaks and stretches, come before the scheduler.
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    other = [p for p in model.parameters() if p.ndim < 2]  # biases and norms
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": args.weight_decay}, {"params": other, "weight_decay": 0.0}],
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
        fused=True,
    )
    stretch_warmup(optimizer, model, args.warmup_stretch)
    scheduler = WarmupScheduler(
        optimizer,
        getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type),
        num_warmup_steps=args.warmup_steps,
        num_training_steps=plan_of(args).total_steps,
        **(args.lr_scheduler_kwargs or {}),
    )

    # accelerate: processes, precision, accumulation. A seedable sampler gives every number of processes the same
    # samples an update. The loaders have generators of their own, so that they draw nothing from dropout's.
    data_seed = args.seed if args.data_seed is None else args.data_seed
    accelerator = Accelerator(
        cpu=args.use_cpu,
        mixed_precision="no" if args.precision == "fp32" else args.precision,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=data_seed),
    )
    make_loader = partial(
        DataLoader,
        collate_fn=default_data_collator,
        num_workers=args.dataloader_num_workers,
        pin_memory=args.dataloader_pin_memory,
    )
    train = {"shuffle": True, "drop_last": args.dataloader_drop_last, "batch_size": args.train_batch_size}
    train_loader = make_loader(data.train, generator=torch.Generator(), **train)
    eval_loader = make_loader(data.validation, generator=torch.Generator(), batch_size=args.eval_batch_size)
    model, optimizer, train_loader, eval_loader, scheduler = accelerator.prepare(
        model, optimizer, train_loader, eval_loader, scheduler
    )

    # The loop. The number of updates alone says where in which epoch the run is: a resumed run goes on with the sample
    # that comes next.
    loop = Loop(run, args, accelerator, model=model, optimizer=optimizer, scheduler=scheduler, eval_loader=eval_loader)
    accumulation = args.gradient_accumulation_steps
    updates_per_epoch = math.ceil(len(train_loader) / accumulation)
    loss_sum, first_logged = torch.zeros((), device=accelerator.device), loop.update
    loop.begin()
    while loop.is_running:
        epoch, updates_done = divmod(loop.update, updates_per_epoch)
        train_loader.set_epoch(epoch)
        batches = skip_first_batches(train_loader, updates_done * accumulation)
        for index, batch in enumerate(batches, start=updates_done * accumulation):
            # accelerate divides the loss by the accumulation; the last update of an epoch may have fewer batches.
            batches_of_update = min(accumulation, len(train_loader) - index // accumulation * accumulation)
            with accelerator.accumulate(model):
                loss = model(**batch).loss
                accelerator.backward(loss * (accumulation / batches_of_update))
                loss_sum += loss.detach() / batches_of_update
                if not accelerator.sync_gradients:
                    continue
                norm = accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm or math.inf)
                loop.before_update()
                learning_rate = scheduler.get_last_lr()[0]
                optimizer.step()
                loop.after_update()
                scheduler.step()
                optimizer.zero_grad()
            due = loop.end_update(updates_per_epoch=updates_per_epoch)
            if due.should_log:
                mean_loss = accelerator.reduce(loss_sum, "mean").item() / (loop.update - first_logged)
                loss_sum, first_logged = torch.zeros_like(loss_sum), loop.update
                loop.log({"loss": mean_loss, "grad_norm": float(norm), "learning_rate": float(learning_rate)})
            if due.should_evaluate:
                loop.log_evaluation(evaluate(accelerator, model, eval_loader, loop.advance_evaluation))
            if due.should_save:
                loop.save()
            if due.should_training_stop:
                break
    loop.end()

    # 6. Results: model, metrics, pictures.
    metrics = evaluate(accelerator, model, eval_loader, loop.advance_evaluation)
    more_metrics, summary = describe_language_model(metrics["eval_loss"], data)
    loop.finish(metrics | more_metrics, summary=summary, tokenizer=data.tokenizer)


def evaluate(
    accelerator: Accelerator, model: torch.nn.Module, loader: DataLoader, advance: Callable[[], None]
) -> dict[str, float]:
    """`eval_loss`, nats a token over the whole validation set, the same on any number of processes.

    After each batch it calls `advance`, which moves the progress bar.
    """
    model.eval()
    sums = torch.zeros(2, dtype=torch.float64)
    for batch in loader:
        with torch.no_grad():
            logits = model(input_ids=batch["input_ids"]).logits[:, :-1].float()
        labels = batch["labels"][:, 1:]
        losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")  # 0 where the label is -100
        # By sample, so that those that are repeated to fill the last batch can be dropped again.
        loss, tokens = accelerator.gather_for_metrics((losses.sum(1), (labels != -100).sum(1)))
        sums += torch.stack([loss.sum().double(), tokens.sum().double()]).cpu()
        advance()
    model.train()
    return {"eval_loss": (sums[0] / sums[1]).item()}


if __name__ == "__main__":
    run_recipe(main)
