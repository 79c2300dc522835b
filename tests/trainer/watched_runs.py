"""What the tests of the monitor share: short runs that are watched, and what is read from their logs."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from hfwarmup.trainer.monitor import watch_warmup

RUN = {"max_steps": 40, "lr_scheduler_type": "warmup_cosine", "warmup_steps": 10, "learning_rate": 1e-2}
LOGGED = RUN | {"logging_strategy": "steps", "logging_steps": 2}


def dropping_llama():
    """Two blocks with dropout in the attention, so that one extra random draw changes the weights."""
    set_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=16, num_key_value_heads=1, attention_dropout=0.3, **sizes))


def measured(trainer, name):
    """update -> value of `warmup/<name>`, from the log entries that have it."""
    key = f"warmup/{name}"
    return {entry["step"]: entry[key] for entry in trainer.state.log_history if key in entry}


def with_and_without(make, **options):
    """Train `make()` without and with the monitor, check that the weights end bit-identical, return the watched one."""
    ends = []
    for watch in (False, True):
        trainer = make()
        if watch:
            watch_warmup(trainer, **options)
        set_seed(1)
        trainer.train()
        ends.append([p.detach().clone() for p in trainer.model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*ends, strict=True))
    return trainer


class Regression(torch.nn.Module):
    """The mean of (w x - y)^2, whose Hessian is 2 E[x x']."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 1, bias=False)

    def forward(self, x, labels):
        return {"loss": (self.linear(x).squeeze(-1) - labels).square().mean()}


POINTS = [{"x": torch.tensor(x), "labels": torch.tensor(1.0)} for x in ([1.0, 0, 0], [0, 2.0, 0], [0, 0, 3.0])]
