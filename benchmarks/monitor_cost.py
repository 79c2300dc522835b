"""What the default monitor costs: the share of a training's time that `watch_warmup` takes.

    python benchmarks/monitor_cost.py [--steps 100]

The default recipe's model, batch and data. The monitor's own callbacks are timed inside one run, where it measures as
often as in any other: at 20 points and at the updates at powers of two. So the share is of the same run, not of another
one on a machine that was busier.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from transformers import AutoModelForCausalLM, Trainer, default_data_collator

import hfwarmup
from hfwarmup.planning.arguments import DataArguments, ModelArguments, WarmupArguments
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.recipe.data import prepare_data
from hfwarmup.recipe.model import build_model
from hfwarmup.recipe.parsing import parse_arguments
from hfwarmup.trainer.monitor import watch_warmup
from hfwarmup.trainer.planning import plan_training, planned_arguments

CONFIG = Path(__file__).parents[1] / "configs/pretrain_clm/stdlib.yaml"
EVENTS = (
    "on_train_begin",
    "on_step_begin",
    "on_substep_end",
    "on_pre_optimizer_step",
    "on_optimizer_step",
    "on_step_end",
    "on_log",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="updates; the config's own number unless given")
    steps = parser.parse_args().steps
    hfwarmup.register()
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--config", str(CONFIG), "--output_dir", folder, "--eval_strategy", "no", "--save_strategy", "no"]
        flags += ["--torch_compile", "false", "--disable_tqdm", "true", *(["--max_steps", str(steps)] if steps else [])]
        model_args, data_args, warmup_args, args = parse_arguments(
            ModelArguments, DataArguments, WarmupArguments, RecipeArguments, argv=flags
        )
        data = prepare_data(data_args)
        model = build_model(AutoModelForCausalLM, model_args, data.tokenizer, data_args.block_size)
        args = planned_arguments(args, warmup_args, plan_training(args, warmup_args, num_samples=len(data.train)))
        trainer = Trainer(model, args, default_data_collator, data.train)
        monitor = watch_warmup(trainer)
        spent = dict.fromkeys(EVENTS, 0.0)
        for event in EVENTS:
            setattr(monitor, event, timed(getattr(monitor, event), event, spent))
        begin = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - begin
    print(f"{args.max_steps} updates in {seconds:.1f} s, of which the monitor took {sum(spent.values()):.2f} s:")
    for event, share in spent.items():
        print(f"  {event:<24}{share:6.2f} s")
    print(f"{sum(spent.values()) / (seconds - sum(spent.values())):.1%} of the training without it")


def timed(callback, event: str, spent: dict[str, float]):
    def call(*args, **kwargs):
        begin = time.perf_counter()
        result = callback(*args, **kwargs)
        spent[event] += time.perf_counter() - begin
        return result

    return call


if __name__ == "__main__":
    main()
