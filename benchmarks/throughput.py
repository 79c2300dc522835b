"""Tokens a second of the default recipe beside a plain Trainer at its own defaults: same model, same data, one machine.

    python benchmarks/throughput.py [--rounds 3] [--steps 40] [--compile]

Each side runs in a process of its own, the sides in turn, `--rounds` times; the first updates of a process are not
counted. `plain` is transformers' Trainer as run_clm.py uses it: batch 8, fp32, glibc's malloc as it is. `recipe` is
configs/pretrain_clm/stdlib.yaml through RecipeArguments, `recipe + malloc` the same under the malloc settings that
launch.sh exports, `compiled` that with torch_compile: true. The share is of the peak that a square bf16 matrix product
reaches here in the same run. The last line is what no training loop can pass: the model's own matrix products and its
attention, forward and backward in bf16, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("plain", "recipe", "recipe + malloc", "compiled")
UNCOUNTED_STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="counted updates a process")
    parser.add_argument("--compile", action="store_true", help="measure the compiled side too")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(train(options.side, options.steps)))
        return
    sides = [side for side in SIDES if options.compile or side != "compiled"]
    results: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(options.rounds):
        for side in sides:
            results[side].append(run_side(side, options.steps))
    peak = matrix_product_peak()
    plain = statistics.median(result["tokens_per_second"] for result in results["plain"])
    print(f"bf16 matrix-product peak {peak / 1e9:.0f} GFLOP/s; medians of {options.rounds} rounds")
    print(f"{'side':<18}{'tokens/s':>10}{'ratio':>8}{'share of peak':>15}{'min .. max':>18}")
    for side, runs in results.items():
        speeds = [run["tokens_per_second"] for run in runs]
        speed = statistics.median(speeds)
        share = speed * runs[0]["flops_per_token"] / peak
        spread = f"{min(speeds):,.0f} .. {max(speeds):,.0f}"
        print(f"{side:<18}{speed:>10,.0f}{speed / plain:>8.2f}{share:>15.0%}{spread:>18}")
    bound = 1 / seconds_per_token_of_products()
    print(f"{'products alone':<18}{bound:>10,.0f}{bound / plain:>8.2f}")
    if "compiled" in results:
        first = [statistics.median(run["first_update_seconds"] for run in results[side]) for side in sides[-2:]]
        print(f"compiling takes {first[1] - first[0]:.0f} s: the first update compiled less the first one not compiled")


def run_side(side: str, steps: int) -> dict[str, float]:
    """One process of one side; its last line is the result."""
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    if side in ("recipe + malloc", "compiled"):
        environment |= launcher_malloc()
    command = [sys.executable, __file__, "--side", side, "--steps", str(steps)]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def launcher_malloc() -> dict[str, str]:
    """The malloc settings that launch.sh exports, read from it."""
    return dict(re.findall(r'(MALLOC_\w+)="\$\{MALLOC_\w+:-(\d+)\}"', (ROOT / "launch.sh").read_text()))


def train(side: str, steps: int) -> dict[str, float]:
    """Train the default recipe's model for some updates and time those after the first few."""
    import torch
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments, default_data_collator

    import hfwarmup
    from hfwarmup.planning.arguments import DataArguments, ModelArguments, WarmupArguments
    from hfwarmup.recipe.arguments import RecipeArguments
    from hfwarmup.recipe.data import prepare_data
    from hfwarmup.recipe.model import build_model
    from hfwarmup.recipe.parsing import parse_arguments
    from hfwarmup.trainer.non_finite import NonFiniteGuard
    from hfwarmup.trainer.planning import plan_training, planned_arguments
    from hfwarmup.trainer.recorder import RunRecorder

    ticks = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            ticks.append(time.perf_counter())

    torch.manual_seed(0)
    hfwarmup.register()
    total = steps + UNCOUNTED_STEPS
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--config", str(ROOT / "configs/pretrain_clm/stdlib.yaml"), "--output_dir", folder]
        flags += ["--max_steps", str(total), "--eval_strategy", "no", "--save_strategy", "no", "--disable_tqdm", "true"]
        flags += ["--torch_compile", str(side == "compiled").lower()]
        model_args, data_args, warmup_args, args = parse_arguments(
            ModelArguments, DataArguments, WarmupArguments, RecipeArguments, argv=flags
        )
        data = prepare_data(data_args)
        model = build_model(AutoModelForCausalLM, model_args, data.tokenizer, data_args.block_size)
        callbacks: list[TrainerCallback] = [Clock()]
        if side == "plain":
            args = TrainingArguments(
                folder, max_steps=total, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True
            )
        else:
            plan = plan_training(args, warmup_args, num_samples=len(data.train))
            args = planned_arguments(args, warmup_args, plan)
            callbacks += [NonFiniteGuard(), RunRecorder()]
        trainer = Trainer(model, args, default_data_collator, data.train, callbacks=callbacks)
        begin = time.perf_counter()
        trainer.train()
    seconds = ticks[-1] - ticks[UNCOUNTED_STEPS - 1]
    tokens = steps * args.per_device_train_batch_size * data_args.block_size
    return {
        "tokens_per_second": tokens / seconds,
        "flops_per_token": flops_per_token(model.config, model),
        "first_update_seconds": ticks[0] - begin,
    }


def flops_per_token(config, model) -> float:
    """6 x weights of the matrix products + 12 x layers x width x context for attention (forward and backward)."""
    weights = sum(p.numel() for p in model.parameters() if p.ndim == 2)  # the tied embedding counts once, as the head
    return 6 * weights + 12 * config.num_hidden_layers * config.hidden_size * config.max_position_embeddings


def matrix_product_peak() -> float:
    """The best FLOP/s of square bf16 products of 512 to 4096, each the best of several."""
    import torch

    best = 0.0
    for size in (512, 1024, 2048, 4096):
        left, right = (torch.randn(size, size, dtype=torch.bfloat16) for _ in range(2))
        best = max(best, 2 * size**3 / best_seconds(lambda left=left, right=right: left @ right))
    return best


def seconds_per_token_of_products() -> float:
    """The matrix products and the attention of stdlib.yaml's model in its own shapes, each the best of several."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from hfwarmup.planning.config import read_config

    config = read_config(ROOT / "configs/pretrain_clm/stdlib.yaml")
    model, batch, context = config["config_overrides"], config["per_device_train_batch_size"], config["block_size"]
    width, inner, heads = model["hidden_size"], model["intermediate_size"], model["num_attention_heads"]
    layers, tokens = model["num_hidden_layers"], batch * context
    seconds = 0.0
    for fan_out, count in ((width, 4 * layers), (inner, 3 * layers), (config["vocab_size"], 1)):
        weight, x, gradient = (
            torch.randn(shape, dtype=torch.bfloat16) for shape in ((fan_out, width), (tokens, width), (tokens, fan_out))
        )
        products = (
            lambda weight=weight, x=x: x @ weight.T,
            lambda weight=weight, gradient=gradient: gradient @ weight,
            lambda x=x, gradient=gradient: gradient.T @ x,
        )
        seconds += count * sum(map(best_seconds, products))
    heads_in = torch.randn(batch, heads, context, width // heads, dtype=torch.bfloat16, requires_grad=True)

    def attention() -> None:
        scaled_dot_product_attention(heads_in, heads_in, heads_in, is_causal=True).sum().backward()

    return (seconds + layers * best_seconds(attention)) / tokens


def best_seconds(compute: Callable[[], object]) -> float:
    """The shortest of several runs."""
    return min(timeit.repeat(compute, number=1, repeat=8))


if __name__ == "__main__":
    main()
