"""The config that a run leaves in its folder: every setting with its origin, to make the run again."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hfwarmup.planning.config import load_config
from hfwarmup.planning.settings_file import settings_text
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.run_folder.files import CONFIG, write_atomically
from hfwarmup.trainer.planning import plan_of

logger = logging.getLogger(__name__)


class KeepConfig(TrainerCallback):
    """Writes the settings of a run into its folder when the training begins, from rank 0; see `keep_config`."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero and isinstance(args, RecipeArguments):
            keep_config(args, update=state.global_step)


def keep_config(args: RecipeArguments, *, update: int) -> None:
    """Write `config.yaml` into the folder of a run: every setting as it was given, its origin, and what the plan made.

    `--config` with that file gives the same arguments again. When a run is resumed at `update` with other settings, the
    earlier file is kept as `config-until-<update>.yaml`, and a warning says what has changed. Nothing is written for
    arguments that `parse_arguments` has not read. Call it on rank 0, when the folder is known to belong to this run.
    """
    if not args.settings:
        return
    path = Path(str(args.output_dir), CONFIG)
    if path.exists():
        changes = _changes(path, args)
        if not changes:
            return
        earlier = path.with_name(f"config-until-{update}.yaml")
        path.replace(earlier)
        logger.warning("settings changed at update %d: %s; the earlier ones are in %s", update, changes, earlier)
    write_atomically(path, settings_text(args.settings, recipe=Path(sys.argv[0]).stem, notes=_notes(args)))


def _changes(path: Path, args: RecipeArguments) -> str:
    """The settings that differ between the file and `args`, apart from `resume`; empty when none does."""
    earlier = load_config(path).values
    rows = [(setting.name, earlier.get(setting.name), setting.value) for setting in args.settings]
    return ", ".join(
        f"{name} {old} -> {new}"
        for name, old, new in rows
        if old != new and name != "resume" and not name.endswith("_token")
    )


def _notes(args: RecipeArguments) -> dict[str, str]:
    """What the plan and the device made of the settings, by name."""
    given = {setting.name: setting.value for setting in args.settings}
    notes = {name: f"{getattr(args, name)} here".lower() for name in ("precision", "torch_compile")}
    notes = {name: note for name, note in notes.items() if given.get(name) == "auto"}
    if (plan := plan_of(args)) is not None:
        notes["warmup"] = f"{plan.warmup_steps} steps by the plan"
        if plan.peak_lr != given["learning_rate"]:
            notes["learning_rate"] = f"{plan.peak_lr:g} by the plan"
        if plan.gradient_accumulation_steps != given["gradient_accumulation_steps"]:
            notes["gradient_accumulation_steps"] = f"{plan.gradient_accumulation_steps} by the plan"
    return notes
