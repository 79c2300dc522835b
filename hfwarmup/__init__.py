"""Learning-rate warmup for Hugging Face training, done right.

The public names are those of `__all__`. Each is loaded at its first use, so `import hfwarmup` loads neither torch nor
transformers. Recipes also use `hfwarmup.recipe`. Every other module is private.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hfwarmup.errors import UserError
    from hfwarmup.measuring.verdict import diagnose
    from hfwarmup.optim.gi_adam import GIAdamW
    from hfwarmup.optim.groups import stretch_warmup
    from hfwarmup.optim.scheduler import WarmupScheduler
    from hfwarmup.optim.warmup import warmup
    from hfwarmup.planning.arguments import WarmupArguments
    from hfwarmup.planning.durations import Duration, parse_duration
    from hfwarmup.planning.plan import Plan, plan_run
    from hfwarmup.schedules.named import get_schedule
    from hfwarmup.trainer.monitor import watch_warmup
    from hfwarmup.trainer.non_finite import NonFiniteGuard
    from hfwarmup.trainer.planning import plan_training, planned_arguments
    from hfwarmup.trainer.recorder import RunRecorder
    from hfwarmup.trainer.registration import register

__version__ = "0.1.0"

_HOMES = {
    # name -> the module that defines it, in the order of the reference
    "register": "hfwarmup.trainer.registration",
    "watch_warmup": "hfwarmup.trainer.monitor",
    "diagnose": "hfwarmup.measuring.verdict",
    "RunRecorder": "hfwarmup.trainer.recorder",
    "NonFiniteGuard": "hfwarmup.trainer.non_finite",
    "WarmupArguments": "hfwarmup.planning.arguments",
    "plan_training": "hfwarmup.trainer.planning",
    "planned_arguments": "hfwarmup.trainer.planning",
    "WarmupScheduler": "hfwarmup.optim.scheduler",
    "warmup": "hfwarmup.optim.warmup",
    "stretch_warmup": "hfwarmup.optim.groups",
    "GIAdamW": "hfwarmup.optim.gi_adam",
    "get_schedule": "hfwarmup.schedules.named",
    "plan_run": "hfwarmup.planning.plan",
    "Plan": "hfwarmup.planning.plan",
    "parse_duration": "hfwarmup.planning.durations",
    "Duration": "hfwarmup.planning.durations",
    "UserError": "hfwarmup.errors",
}

__all__ = [  # noqa: RUF022  as in _HOMES; a literal, so that type checkers and the reference can read it
    "register",
    "watch_warmup",
    "diagnose",
    "RunRecorder",
    "NonFiniteGuard",
    "WarmupArguments",
    "plan_training",
    "planned_arguments",
    "WarmupScheduler",
    "warmup",
    "stretch_warmup",
    "GIAdamW",
    "get_schedule",
    "plan_run",
    "Plan",
    "parse_duration",
    "Duration",
    "UserError",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hfwarmup' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*(name for name in globals() if name.startswith("__")), *__all__]
