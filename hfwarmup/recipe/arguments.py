"""TrainingArguments with the defaults of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal, Self, cast

import torch
from transformers import TrainingArguments

from hfwarmup.errors import UserError
from hfwarmup.planning.settings import DEFAULT_LEARNING_RATE
from hfwarmup.planning.settings_file import Setting
from hfwarmup.planning.values import read_map, read_value
from hfwarmup.recipe.precision import choose_precision
from hfwarmup.run_folder.checkpoints import Resume


@dataclass(kw_only=True)
class RecipeArguments(TrainingArguments):
    """TrainingArguments with the defaults of a recipe: precision and compilation chosen, no run overwritten."""

    precision: Literal["auto", "bf16", "fp16", "fp32"] = field(
        default="auto", metadata={"help": "auto: bf16 where the device has it fast, fp16 on older GPUs, else fp32"}
    )
    torch_compile: bool | Literal["auto"] = field(  # type: ignore[assignment]
        default="auto", metadata={"help": "auto: when the run is long enough to pay for it; or true, or false"}
    )
    resume: Resume = field(
        default="never", metadata={"help": "never, auto (from the last checkpoint, if there is one) or must"}
    )
    learning_rate: float = field(
        default=DEFAULT_LEARNING_RATE, metadata={"help": "peak learning rate at the reference batch"}
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "hide losses that are not finite in the logs"}
    )
    report_to: str | list[str] = field(default="none", metadata={"help": "trackers: tensorboard, trackio, …, or none"})
    ddp_find_unused_parameters: bool = field(
        default=False, metadata={"help": "look for parameters without gradient at every step, which costs time"}
    )
    settings: tuple[Setting, ...] = field(init=False, default=(), repr=False)
    """what parse_arguments read, of all arguments of the recipe, each with its origin"""

    def __post_init__(self) -> None:
        read_value("torch_compile", self.torch_compile, bool | Literal["auto"])
        self.auto_compile = self.torch_compile == "auto"
        self.torch_compile = self.torch_compile is True
        # transformers asks for use_cpu before it lets a CPU train in bf16.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        self.precision_reason = self._settle_precision()
        if self.lr_scheduler_kwargs is not None:
            self.lr_scheduler_kwargs = read_map("lr_scheduler_kwargs", self.lr_scheduler_kwargs)
        super().__post_init__()
        if self.precision == "fp32":
            self.mixed_precision = "no"  # whatever the launcher was told

    def _settle_precision(self) -> str:
        """Turn `precision` into bf16 and fp16, and say why."""
        flagged = [name for name, flag in (("bf16", self.bf16), ("fp16", self.fp16)) if flag]
        if len(flagged) > 1 or (flagged and self.precision not in ("auto", flagged[0])):
            given = " and ".join([*(f"{name}=true" for name in flagged), f"precision={self.precision}"])
            raise UserError(f"{given} contradict; keep precision.")
        reason = "as asked for"
        if flagged:
            self.precision = cast(Any, flagged[0])
        elif self.precision == "auto":
            device = torch.device("cpu") if self.use_cpu else torch.accelerator.current_accelerator()
            self.precision, reason = choose_precision(device or torch.device("cpu"))
        self.bf16, self.fp16 = self.precision == "bf16", self.precision == "fp16"
        return f"precision {self.precision}: {reason}"

    def __copy__(self) -> Self:
        return self._with(vars(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._with(deepcopy(vars(self), memo))

    def _with(self, attributes: Mapping[str, Any]) -> Self:
        other = object.__new__(type(self))
        vars(other).update(attributes)
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the class of the library that it extends, so that training_args.bin opens without this package.

        The `settings` stay out; they are in the run's config.yaml.
        """
        libraries = (kind for kind in type(self).__mro__ if kind.__module__.startswith(("transformers.", "trl.")))
        state = {name: value for name, value in vars(self).items() if name != "settings"}
        return object.__new__, (next(libraries),), state
