"""`hfwarmup env`: what a bug report needs."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import typer

from hfwarmup.planning.config import load_config

# fmt: off
PACKAGES = (
    "hfwarmup", "torch", "transformers", "accelerate", "datasets", "evaluate", "trl", "peft", "deepspeed", "numpy",
)
# fmt: on
LAUNCH_SETTINGS = ("distributed_type", "num_machines", "num_processes", "mixed_precision", "use_cpu")
"""The settings of accelerate's default config that are shown; the file may hold addresses and names as well."""


def env() -> None:
    """Versions, devices and launch settings, to paste into a bug report; no secrets and no addresses."""
    import psutil
    import torch

    from hfwarmup.recipe.precision import choose_precision
    from hfwarmup.trainer.compat import default_launch_config
    from hfwarmup.trainer.provenance import RECORDED_VARIABLES, installed_version

    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    precision, reason = choose_precision(device)
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    facts = {name: installed_version(name) for name in PACKAGES}
    facts |= {
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        "CPU cores": f"{psutil.cpu_count()} ({psutil.cpu_count(logical=False)} physical), {platform.machine()}",
        "GPUs": f"{len(gpus)}: {', '.join(gpus)}" if gpus else "0",
        "precision auto": f"{precision}: {reason}",
        "accelerate config": _launch_settings(default_launch_config()),
        "environment": " ".join(f"{name}={os.environ[name]}" for name in RECORDED_VARIABLES if name in os.environ),
    }
    for name, fact in facts.items():
        typer.echo(f"{name:<18} {fact}".rstrip())


def _launch_settings(config: Path) -> str:
    """What `accelerate launch` does without --config_file."""
    if not config.is_file():
        return "no default config"
    values = load_config(config).values
    return " ".join(f"{name}={values[name]}" for name in LAUNCH_SETTINGS if name in values)
