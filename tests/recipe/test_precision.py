"""Precision and compilation are decided from the device and the run, and the reason is said."""

from __future__ import annotations

import pytest
import torch

from hfwarmup.recipe import precision
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.recipe.precision import choose_compile, choose_precision, resolve_compile, time_forward_backward

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _launched_by_hand(monkeypatch):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, ("bf16", "this CPU computes bf16 natively (amx_bf16)")),
        ({"amx_bf16": False, "avx512_bf16": True}, ("bf16", "this CPU computes bf16 natively (avx512_bf16)")),
        ({"avx2": True}, ("fp32", "this CPU has no native bf16 (neither amx_bf16 nor avx512_bf16)")),
        ({}, ("fp32", "this CPU has no native bf16 (neither amx_bf16 nor avx512_bf16)")),
    ],
)
def test_a_cpu_trains_in_bf16_where_it_has_it(capabilities, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_precision(CPU) == expected


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        # Volta, Turing, Ampere, Hopper, Blackwell
        ((7, 0), ("fp16", "GPU X (compute capability 7.0) has no bf16 tensor cores")),
        ((7, 5), ("fp16", "GPU X (compute capability 7.5) has no bf16 tensor cores")),
        ((8, 0), ("bf16", "GPU X (compute capability 8.0) has bf16 tensor cores")),
        ((9, 0), ("bf16", "GPU X (compute capability 9.0) has bf16 tensor cores")),
        ((12, 0), ("bf16", "GPU X (compute capability 12.0) has bf16 tensor cores")),
    ],
)
def test_a_gpu_trains_in_bf16_from_ampere_on(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "GPU X")
    assert choose_precision(CUDA) == expected


def test_another_device_trains_in_fp32():
    assert choose_precision(torch.device("mps")) == ("fp32", "no faster precision is known to be safe on mps")


@pytest.mark.parametrize("launched", ["bf16", "fp16"])
def test_the_launcher_decides_where_it_was_told(launched, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    assert choose_precision(CPU) == (launched, f"accelerate was launched with mixed_precision={launched}")


def test_a_launcher_that_was_told_no_precision_leaves_the_choice(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert choose_precision(CPU)[0] == "bf16"


# Compilation


@pytest.fixture
def compiler(monkeypatch):
    monkeypatch.setattr(precision.shutil, "which", lambda _: "/usr/bin/g++")


@pytest.mark.parametrize(
    ("device", "run_seconds", "pays", "verdict"),
    [
        # saved: 3/23 of a CPU's run (1 - 1/1.15), 2/7 of a GPU's (1 - 1/1.4); compiling costs twice 75 s, twice 90 s
        (CPU, 1149, False, "about 1149 s uncompiled, saves at least 150 s, costs up to 150 s"),
        (CPU, 1151, True, "about 1151 s uncompiled, saves at least 150 s, costs up to 150 s"),
        (CUDA, 629, False, "about 629 s uncompiled, saves at least 180 s, costs up to 180 s"),
        (CUDA, 631, True, "about 631 s uncompiled, saves at least 180 s, costs up to 180 s"),
    ],
)
def test_compiling_pays_on_a_run_that_is_long_enough(device, run_seconds, pays, verdict, compiler):
    assert choose_compile(device, step_seconds=0.5, total_steps=2 * run_seconds) == (pays, verdict)


def test_a_cpu_without_a_compiler_does_not_compile(monkeypatch):
    monkeypatch.setattr(precision.shutil, "which", lambda _: None)
    reason = "compiling for the CPU needs a C++ compiler, and none is installed"
    assert choose_compile(CPU, step_seconds=1.0, total_steps=10**6) == (False, reason)
    assert choose_compile(CUDA, step_seconds=1.0, total_steps=10**6)[0]


@pytest.fixture
def batch(blocks):
    return {name: torch.stack([row[name] for row in blocks(2)]) for name in ("input_ids", "labels")}


def test_the_timing_leaves_running_statistics_and_modes(batch):
    class Normed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(4)

        def forward(self, input_ids, labels):
            return {"loss": (self.norm(input_ids.float()) - labels).square().mean()}

    model = Normed().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    time_forward_backward(model, batch, device=CPU, precision="fp32")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model.norm.training


def test_the_timing_leaves_no_trace(tiny_llama, batch):
    model = tiny_llama()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    assert time_forward_backward(model, batch, device=CPU, precision="fp32") > 0
    assert torch.equal(torch.rand(3), expected)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("chosen", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_what_is_timed_is_what_will_be_trained(chosen, dtype, tiny_llama, batch):
    seen = []
    model = tiny_llama()
    model.lm_head.register_forward_hook(lambda module, _, output: seen.append((output.dtype, module.training)))
    time_forward_backward(model, batch, device=CPU, precision=chosen)
    assert seen == [(dtype, True)] * 2


@pytest.mark.parametrize(
    ("accumulation", "total_steps", "compiles", "backend"),
    [
        # a batch takes 1 s: 1150 of them are the limit
        (1, 1200, True, "inductor"),
        (1, 1100, False, None),
        (2, 600, True, "inductor"),
        (2, 550, False, None),
    ],
)
def test_auto_compiles_the_runs_that_are_long_enough(
    accumulation, total_steps, compiles, backend, tmp_path, tiny_llama, batch, compiler, monkeypatch
):
    monkeypatch.setattr(precision, "time_forward_backward", lambda *_, **__: 1.0)
    args = RecipeArguments(
        output_dir=str(tmp_path), use_cpu=True, precision="fp32", gradient_accumulation_steps=accumulation
    )
    said = resolve_compile(args, tiny_llama(), batch, total_steps=total_steps)
    seconds = accumulation * total_steps
    assert (args.torch_compile, args.torch_compile_backend) == (compiles, backend)
    assert said == (
        f"torch_compile {str(compiles).lower()}: about {seconds} s uncompiled, "
        f"saves at least {3 / 23 * seconds:.0f} s, "
        "costs up to 150 s"
    )


def test_a_choice_of_the_users_is_not_timed(tmp_path, tiny_llama, batch, monkeypatch):
    monkeypatch.setattr(precision, "time_forward_backward", None)
    args = RecipeArguments(output_dir=str(tmp_path), use_cpu=True, precision="fp32", torch_compile=False)
    assert resolve_compile(args, tiny_llama(), batch, total_steps=10**9) == "torch_compile false: as asked for"
    assert args.torch_compile is False
