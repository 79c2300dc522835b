"""What measuring costs: the largest Hessian eigenvalue beside PyHessian's.

A small Llama on the standard library's bytes, before training and at two points of it. PyHessian runs as it comes
(`eigenvalues()`: power iteration from a random vector, up to 100 products, until the value changes by less than 1e-3);
ours runs to the tolerance it comes with. All see the same batch in float32, PyHessian and the first of ours with eager
attention, since fused attention has no double backward; "fused" is ours on the model as transformers makes it, with
differences of gradients. A warm start has the eigenvector of the batch before. The error of each is taken against
Lanczos to 1e-6 in float64. Times are medians over rounds in which all take turns, PyHessian with a new start each time;
a ratio is its time over ours.

    pip install -e .[bench]                      # PyHessian
    python benchmarks/measuring.py
    python benchmarks/measuring.py --starts 250  # instead: how often a random start stops at a lower eigenvalue
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from hfwarmup.measuring.products import HessianProduct
from hfwarmup.measuring.sharpness import Sharpness, lanczos, sharpness

BATCH, LENGTH, ROUNDS = 8, 64, 3
STAGES = (0, 10, 100)
"""Updates after which is measured."""


class Logits(nn.Module):
    """A model as PyHessian calls it: tokens in, logits out."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = LlamaConfig(vocab_size=256, max_position_embeddings=LENGTH, use_cache=False, **sizes)
        self.llama = LlamaForCausalLM._from_config(config, attn_implementation="eager")

    def forward(self, tokens: Tensor) -> Tensor:
        return self.llama(tokens).logits


def criterion(logits: Tensor, tokens: Tensor) -> Tensor:
    """The next token's loss, nats a token."""
    return cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def batches(count: int) -> Tensor:
    """(count, BATCH, LENGTH) bytes of the standard library's source."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    text = b"".join(path.read_bytes() for path in files)
    rows = torch.frombuffer(bytearray(text), dtype=torch.uint8)[: count * BATCH * LENGTH]
    return rows.long().view(BATCH, count, LENGTH).transpose(0, 1).contiguous()


def train(model: Logits, data: Tensor) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for tokens in data:
        criterion(model(tokens), tokens).backward()
        optimizer.step()
        optimizer.zero_grad()


def ours(model: Logits, tokens: Tensor, start: Tensor | None = None, tolerance: float = 1e-3) -> Sharpness:
    parameters = list(model.parameters())
    return sharpness(lambda: criterion(model(tokens), tokens), parameters, start=start, tolerance=tolerance)


def theirs(model: Logits, tokens: Tensor) -> float:
    from pyhessian import hessian

    values, _ = hessian(model, criterion, data=(tokens, tokens), cuda=False).eigenvalues()
    model.zero_grad()
    return values[0]


def timed(measure: Callable[[], float]) -> tuple[float, float]:
    began = time.perf_counter()
    value = measure()
    return time.perf_counter() - began, value


def compare(updates: int, model: Logits, tokens: Tensor, earlier: Tensor) -> None:
    fused = copy.deepcopy(model)
    fused.llama.set_attn_implementation("sdpa")
    exact = ours(copy.deepcopy(model).double(), tokens, tolerance=1e-6).value
    start = ours(model, earlier).vector
    contestants = {
        "PyHessian, default": lambda: theirs(model, tokens),
        "hfwarmup": lambda: ours(model, tokens).value,
        "hfwarmup, warm": lambda: ours(model, tokens, start=start).value,
        "hfwarmup, fused": lambda: ours(fused, tokens).value,
        "hfwarmup, fused, warm": lambda: ours(fused, tokens, start=start).value,
    }
    rounds = [{name: timed(measure) for name, measure in contestants.items()} for _ in range(ROUNDS)]
    seconds = {name: statistics.median(each[name][0] for each in rounds) for name in contestants}
    print(f"after {updates} updates: largest eigenvalue {exact:.4f}")
    for name in contestants:
        errors = [abs(each[name][1] / exact - 1) for each in rounds]
        ratio = seconds["PyHessian, default"] / seconds[name]
        print(f"  {name:<22} {seconds[name]:6.2f} s  {ratio:5.1f} x  relative error {max(errors):.1e} at worst")


def count_misses(model: Logits, tokens: Tensor, starts: int) -> None:
    """Random starts whose value is off by more than 1%, for the products in a row that a tolerance must hold."""
    parameters = list(model.parameters())
    exact = ours(copy.deepcopy(model).double(), tokens, tolerance=1e-6).value
    product = HessianProduct(lambda: criterion(model(tokens), tokens), parameters)
    size = sum(parameter.numel() for parameter in parameters)
    for in_a_row in (1, 2, 3):
        counted, misses = product.count, 0
        for seed in range(starts):
            start = torch.randn(size, generator=torch.Generator().manual_seed(seed))
            misses += abs(lanczos(product, start, in_a_row=in_a_row)[0] / exact - 1) > 0.01
        mean = (product.count - counted) / starts
        print(f"{in_a_row} in a row: {misses} of {starts} random starts off by more than 1%, {mean:.1f} products each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=0, help="random starts to count the misses of")
    starts = parser.parse_args().starts
    set_seed(0)
    data = batches(STAGES[-1] + 2)
    model = Logits()
    print(f"Llama of {sum(p.numel() for p in model.parameters()):,} parameters, batch {BATCH} x {LENGTH}")
    if not starts and find_spec("pyhessian") is None:
        sys.exit("PyHessian is not installed; pip install -e .[bench]")
    for done, updates in zip((0, *STAGES), STAGES, strict=False):
        train(model, data[done:updates])
        if not starts:
            compare(updates, model, data[-1], data[-2])
    if starts:
        count_misses(model, data[-1], starts)


if __name__ == "__main__":
    main()
