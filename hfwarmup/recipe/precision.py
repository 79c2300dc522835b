"""Which precision to train in, and whether compiling pays: decided from the device and the run, with the reason."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import Literal

import torch
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import TrainingArguments

from hfwarmup.measuring.preserving_state import preserving_state

Precision = Literal["bf16", "fp16", "fp32"]

COMPILE_SECONDS = {"cpu": 75.0, "cuda": 90.0}
"""What it costs a process to compile forward and backward of a small transformer; a cautious assumption."""

COMPILE_SPEEDUP = {"cpu": 1.15, "cuda": 1.4}
"""How much faster compiled code is: `benchmarks/throughput.py --compile` on 2 CPU cores; an assumption for CUDA."""


def choose_precision(device: torch.device) -> tuple[Precision, str]:
    """The fastest precision that trains safely on `device`, and why.

    It is bf16 where the device computes it natively, fp16 on older CUDA GPUs, else fp32. What `accelerate launch
    --mixed_precision` was given comes first.
    """
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launched in ("bf16", "fp16"):
        return ("bf16" if launched == "bf16" else "fp16"), f"accelerate was launched with mixed_precision={launched}"
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        name = torch.cuda.get_device_name(device)
        if major >= 8:
            return "bf16", f"{name} (compute capability {major}.{minor}) has bf16 tensor cores"
        return "fp16", f"{name} (compute capability {major}.{minor}) has no bf16 tensor cores"
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        native = [name for name in ("amx_bf16", "avx512_bf16") if capabilities.get(name)]
        if native:
            return "bf16", f"this CPU computes bf16 natively ({native[0]})"
        return "fp32", "this CPU has no native bf16 (neither amx_bf16 nor avx512_bf16)"
    return "fp32", f"no faster precision is known to be safe on {device.type}"


def resolve_compile(
    training: TrainingArguments, model: nn.Module, batch: dict[str, torch.Tensor], *, total_steps: int
) -> str:
    """Set `torch_compile: auto` to true or false for a run, and say why: rank 0 times one batch and decides for all."""
    if not getattr(training, "auto_compile", False):
        return f"torch_compile {str(training.torch_compile).lower()}: as asked for"
    precision: Precision = "bf16" if training.bf16 else "fp16" if training.fp16 else "fp32"
    seconds = time_forward_backward(model, batch, device=training.device, precision=precision)
    step_seconds = seconds * training.gradient_accumulation_steps
    verdict = [choose_compile(training.device, step_seconds=step_seconds, total_steps=total_steps)]
    pays, reason = broadcast_object_list(verdict)[0]
    training.torch_compile = pays
    training.torch_compile_backend = "inductor" if pays else None
    return f"torch_compile {str(pays).lower()}: {reason}"


def choose_compile(device: torch.device, *, step_seconds: float, total_steps: int) -> tuple[bool, str]:
    """Whether torch.compile pays on a run of `total_steps` updates of `step_seconds` each, uncompiled, and why.

    It pays when run - run / speedup > 2 x the cost of compiling, with run = step_seconds * total_steps. The factor 2
    stands for the graph of the evaluation and for batches of another shape.

    >>> choose_compile(torch.device("cuda"), step_seconds=0.1, total_steps=1000)[0]
    False
    """
    if device.type == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None:
        return False, "compiling for the CPU needs a C++ compiler, and none is installed"
    if sys.platform == "win32":
        return False, "compiling is not supported on Windows here"
    run_seconds = step_seconds * total_steps
    saved = run_seconds * (1 - 1 / COMPILE_SPEEDUP.get(device.type, 1.4))
    cost = 2 * COMPILE_SECONDS.get(device.type, 90.0)
    verdict = f"about {run_seconds:.0f} s uncompiled, saves at least {saved:.0f} s, costs up to {cost:.0f} s"
    return saved > cost, verdict


def time_forward_backward(
    model: nn.Module, batch: dict[str, torch.Tensor], *, device: torch.device, precision: Precision
) -> float:
    """Seconds of one forward and backward pass of `model` on `batch`: the second of two, without the update.

    Gradients, buffers, modes and the random state are restored, so this does not change the training.
    """
    model = model.to(device)
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    seconds = 0.0
    with preserving_state(model):
        model.train()
        for _ in range(2):
            begin = time.perf_counter()
            with torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32"):
                loss = model(**batch)["loss"]  # every model has the key, few have the attribute
            loss.backward()
            loss.item()  # waits for the device
            seconds = time.perf_counter() - begin
    return seconds
