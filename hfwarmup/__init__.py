"""Learning-rate warmup for Hugging Face training, done right.

The names below are the public ones. Each is loaded at its first use, so that `import hfwarmup` needs neither torch nor
transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hfwarmup.optim.gi_adam import GIAdamW
    from hfwarmup.optim.scheduler import WarmupScheduler
    from hfwarmup.optim.warmup import warmup
    from hfwarmup.planning.durations import Duration, parse_duration
    from hfwarmup.planning.plan import Plan, plan_run
    from hfwarmup.schedules.named import get_schedule
    from hfwarmup.trainer.registration import register

__version__ = "0.1.0"

_HOMES = {
    "Duration": "hfwarmup.planning.durations",
    "GIAdamW": "hfwarmup.optim.gi_adam",
    "Plan": "hfwarmup.planning.plan",
    "WarmupScheduler": "hfwarmup.optim.scheduler",
    "get_schedule": "hfwarmup.schedules.named",
    "parse_duration": "hfwarmup.planning.durations",
    "plan_run": "hfwarmup.planning.plan",
    "register": "hfwarmup.trainer.registration",
    "warmup": "hfwarmup.optim.warmup",
}

__all__ = [  # noqa: RUF022  in the order of use
    "register",
    "get_schedule",
    "WarmupScheduler",
    "warmup",
    "GIAdamW",
    "plan_run",
    "Plan",
    "parse_duration",
    "Duration",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hfwarmup' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
