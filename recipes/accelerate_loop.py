"""The pretraining of pretrain_clm without a Trainer: a raw accelerate loop, with a named warmup schedule.

    ./launch.sh accelerate_loop --config configs/accelerate_loop/stdlib.yaml [--key value …]

A script to copy and change: arguments, data, model, plan, optimizer and schedule, accelerate, training, results.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator, skip_first_batches
from accelerate.utils import DataLoaderConfiguration
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, TrainerControl, TrainerState, default_data_collator, set_seed
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback
from transformers.trainer_pt_utils import AcceleratorConfig
from transformers.trainer_utils import rotate_checkpoints

import hfwarmup
from hfwarmup.errors import UserError
from hfwarmup.optim.groups import stretch_warmup
from hfwarmup.planning.arguments import DataArguments, ModelArguments, WarmupArguments
from hfwarmup.planning.values import read_map
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.recipe.baselines import next_token_targets, unigram_loss
from hfwarmup.recipe.console import run_recipe, speak_from_rank_zero
from hfwarmup.recipe.data import prepare_data
from hfwarmup.recipe.model import build_model
from hfwarmup.recipe.parsing import parse_arguments
from hfwarmup.recipe.precision import settle_compile
from hfwarmup.recipe.run import draw_run
from hfwarmup.recipe.run_config import KeepConfig
from hfwarmup.reporting.card import write_card
from hfwarmup.run_folder.checkpoints import find_checkpoint
from hfwarmup.trainer.non_finite import NonFiniteGuard
from hfwarmup.trainer.planning import plan_training, planned_arguments
from hfwarmup.trainer.progress import progress_of
from hfwarmup.trainer.recorder import RunRecorder
from hfwarmup.trainer.warmup_callback import WarmupCallback

logger = logging.getLogger("hfwarmup.recipe")

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
"""The settings that this loop follows; another one is an error."""


@dataclass(kw_only=True)
class LoopArguments(RecipeArguments):
    """The arguments of a recipe, and those of this loop."""

    warmup_stretch: str = field(
        default="{}",
        metadata={"help": "a YAML map, or JSON: regular expression in a parameter's name -> factor of its warmup"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.stretch: dict[str, float] = read_map("warmup_stretch", self.warmup_stretch)
        unset = (None, "none", AcceleratorConfig())  # what transformers makes of a setting that is not given
        for setting in fields(self):
            default = setting.default if setting.default_factory is MISSING else setting.default_factory()
            value = getattr(self, setting.name)
            value, default = (getattr(choice, "value", choice) or None for choice in (value, default))
            if setting.name not in FOLLOWED and value != default and not (value in unset and default in unset):
                raise UserError(
                    f"accelerate_loop does not follow {setting.name}={value}; drop it, or take pretrain_clm."
                )
        if "epoch" in (self.logging_strategy, self.eval_strategy, self.save_strategy):
            raise UserError("accelerate_loop logs, evaluates and saves by steps; drop the strategy 'epoch'.")


ARGUMENTS = (ModelArguments, DataArguments, WarmupArguments, LoopArguments)


def main() -> None:
    # 1. Arguments: the YAML file of --config, then flags.
    hfwarmup.register()
    model_args, data_args, warmup_args, args = parse_arguments(*ARGUMENTS)
    speak_from_rank_zero()
    checkpoint = find_checkpoint(args.output_dir, args.resume)
    Path(args.output_dir).mkdir(parents=True, exist_ok=True)
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
    plan = plan_training(args, warmup_args, num_samples=len(data.train), tokens_per_sample=data_args.block_size)
    args = planned_arguments(args, warmup_args, plan)
    logger.info("%s", plan)
    sample = default_data_collator([data.train[i] for i in range(min(args.train_batch_size, len(data.train)))])
    logger.info("%s", settle_compile(args, model, sample, total_steps=plan.total_steps))
    if args.torch_compile:
        model.compile()

    # 5. Optimizer and schedule: the groups, with their peaks and stretches, exist before the scheduler is made.
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    other = [p for p in model.parameters() if p.ndim < 2]  # biases and norms
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": args.weight_decay}, {"params": other, "weight_decay": 0.0}],
        lr=plan.peak_lr,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
        fused=True,
    )
    stretch_warmup(optimizer, model, args.stretch)
    scheduler = hfwarmup.WarmupScheduler(
        optimizer,
        getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type),
        num_warmup_steps=plan.warmup_steps,
        num_training_steps=plan.total_steps,
        **(args.lr_scheduler_kwargs or {}),
    )

    # 6. accelerate: processes, precision, accumulation. A seedable sampler gives every process count the same samples
    # an update. Loaders with a generator of their own draw nothing from the global one, which dropout reads.
    accelerator = Accelerator(
        cpu=args.use_cpu,
        mixed_precision="no" if args.precision == "fp32" else args.precision,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        dataloader_config=DataLoaderConfiguration(
            use_seedable_sampler=True, data_seed=args.seed if args.data_seed is None else args.data_seed
        ),
    )
    common = {
        "collate_fn": default_data_collator,
        "num_workers": args.dataloader_num_workers,
        "pin_memory": args.dataloader_pin_memory,
    }
    loaders = (
        DataLoader(
            data.train,
            batch_size=args.train_batch_size,
            shuffle=True,
            drop_last=args.dataloader_drop_last,
            generator=torch.Generator(),
            **common,
        ),
        DataLoader(data.validation, batch_size=args.eval_batch_size, generator=torch.Generator(), **common),
    )
    model, optimizer, train_loader, eval_loader, scheduler = accelerator.prepare(model, optimizer, *loaders, scheduler)

    # 7. Where the run is, and the callbacks of a Trainer, which serve a loop as well: they check each update, record
    # its learning rate, and say when to log, evaluate and save.
    state = TrainerState()
    if checkpoint is not None:
        accelerator.load_state(checkpoint)
        state = TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME)))
        logger.info("resumed from %s, at update %d of %d", checkpoint, state.global_step, plan.total_steps)
    state.max_steps, state.is_world_process_zero = plan.total_steps, accelerator.is_main_process
    state.compute_steps(args, plan.total_steps)
    watch = [DefaultFlowCallback(), WarmupCallback(), NonFiniteGuard(), RunRecorder(), KeepConfig(), progress_of(args)]
    callbacks = CallbackHandler(watch, model, data.tokenizer, optimizer, scheduler)
    callbacks.eval_dataloader = eval_loader
    advance = partial(callbacks.on_prediction_step, args, state, TrainerControl())

    # 8. Training. The update alone says where in which epoch the run is, so a resumed one goes on with the next sample.
    accumulation = args.gradient_accumulation_steps
    updates_per_epoch = math.ceil(len(train_loader) / accumulation)
    loss_sum, first_logged = torch.zeros((), device=accelerator.device), state.global_step
    begin, first_update = time.perf_counter(), state.global_step
    control = callbacks.on_train_begin(args, state, TrainerControl())
    while state.global_step < plan.total_steps and not control.should_training_stop:
        epoch, updates_done = divmod(state.global_step, updates_per_epoch)
        train_loader.set_epoch(epoch)
        batches = skip_first_batches(train_loader, updates_done * accumulation)
        for index, batch in enumerate(batches, start=updates_done * accumulation):
            # accelerate divides the loss by the accumulation; an epoch's last update may have fewer batches.
            batches_of_update = min(accumulation, len(train_loader) - index // accumulation * accumulation)
            with accelerator.accumulate(model):
                loss = model(**batch).loss
                accelerator.backward(loss * (accumulation / batches_of_update))
                loss_sum += loss.detach() / batches_of_update
                if not accelerator.sync_gradients:
                    continue
                norm = accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm or math.inf)
                callbacks.on_pre_optimizer_step(args, state, control)
                learning_rate = scheduler.get_last_lr()[0]
                optimizer.step()
                callbacks.on_optimizer_step(args, state, control)
                scheduler.step()
                optimizer.zero_grad()
            state.global_step += 1
            state.epoch = state.global_step / updates_per_epoch
            control = callbacks.on_step_end(args, state, control)
            if control.should_log:
                mean_loss = accelerator.reduce(loss_sum, "mean").item() / (state.global_step - first_logged)
                loss_sum, first_logged = torch.zeros_like(loss_sum), state.global_step
                entry = {"loss": mean_loss, "grad_norm": float(norm), "learning_rate": float(learning_rate)}
                state.log_history.append({**entry, "step": state.global_step})
                callbacks.on_log(args, state, control, entry)
            if control.should_evaluate:
                metrics = evaluate(accelerator, model, eval_loader, advance)
                state.log_history.append({**metrics, "step": state.global_step})
                callbacks.on_log(args, state, control, metrics)
                callbacks.on_evaluate(args, state, control, metrics)
            if control.should_save:
                save_checkpoint(accelerator, args, state)
                callbacks.on_save(args, state, control)
            if control.should_training_stop:
                break
    callbacks.on_train_end(args, state, control)
    seconds, updates = time.perf_counter() - begin, state.global_step - first_update

    # 9. Results: model, metrics, pictures. `run_recipe` destroys the process group when the model is gone.
    metrics = evaluate(accelerator, model, eval_loader, advance)
    callbacks.on_evaluate(args, state, control, metrics)
    nats, vocab_size = metrics["eval_loss"], len(data.tokenizer)
    metrics["eval_baseline_loss"] = unigram_loss(data.train, next_token_targets(data.validation), vocab_size)
    metrics["eval_perplexity"] = math.exp(min(nats, 700.0))
    metrics["eval_bits_per_byte"] = nats / math.log(2) / data.validation_bytes_per_token
    weights = accelerator.get_state_dict(model)  # on every rank: shards are gathered
    if accelerator.is_main_process:
        folder = Path(args.output_dir)
        accelerator.unwrap_model(model).save_pretrained(folder, state_dict=weights)
        data.tokenizer.save_pretrained(folder)
        speed = {"train_runtime": seconds, "train_steps_per_second": updates / seconds}
        (folder / "all_results.json").write_text(json.dumps({**speed, **metrics}, indent=4, sort_keys=True) + "\n")
        state.save_to_json(str(folder / TRAINER_STATE_NAME))
        draw_run(folder, scheduler.scheduler, state.log_history)
        summary = (
            f"validation loss {nats:.3f} nats a token, perplexity {metrics['eval_perplexity']:.1f}, "
            f"{metrics['eval_bits_per_byte']:.3f} bits a byte; token frequencies alone give "
            f"{metrics['eval_baseline_loss']:.3f} nats, a uniform guess {math.log(vocab_size):.2f}"
        )
        write_card(folder, summary=summary, library_name="transformers")
        logger.info("%s", summary)
        logger.info("model     %s", folder / "model.safetensors")
        logger.info("metrics   %s", folder / "all_results.json")
        logger.info("pictures  %s %s", folder / "schedule.png", folder / "loss.png")
        logger.info("card      %s", folder / "README.md")
        logger.info("to look at it: hfwarmup report %s", folder)


def evaluate(
    accelerator: Accelerator, model: torch.nn.Module, loader: DataLoader, advance: Callable[[], object]
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
        # By sample, so that those repeated to fill the last batch are dropped again.
        loss, tokens = accelerator.gather_for_metrics((losses.sum(1), (labels != -100).sum(1)))
        sums += torch.stack([loss.sum().double(), tokens.sum().double()]).cpu()
        advance()
    model.train()
    return {"eval_loss": (sums[0] / sums[1]).item()}


def save_checkpoint(accelerator: Accelerator, args: LoopArguments, state: TrainerState) -> None:
    """Save `checkpoint-<update>`; the state comes last, since a checkpoint without it counts as cut off."""
    folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
    accelerator.save_state(str(folder))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        state.save_to_json(str(folder / TRAINER_STATE_NAME))
        rotate_checkpoints(args.output_dir, args.save_total_limit)
    accelerator.wait_for_everyone()


if __name__ == "__main__":
    run_recipe(main)
