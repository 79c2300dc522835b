"""The model card of a run: what was trained and how, in the README.md that a push to the hub publishes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from transformers import Trainer

from hfwarmup.run_folder.data import read_run
from hfwarmup.run_folder.facts import environment_of, facts_of, results_of

TEMPLATE = Path(__file__).with_name("template") / "card.md"


def own_model_card(trainer: Trainer, *, summary: str) -> None:
    """Make this card the one that the Trainer writes, whenever it does: before each push it writes it anew.

    Without this, `push_to_hub` replaces README.md by a card that knows nothing of the schedule.
    """
    folder = Path(str(trainer.args.output_dir))
    model = trainer.accelerator.unwrap_model(trainer.model)
    config = getattr(model, "config", None)
    base_model = getattr(config, "_name_or_path", "")
    data = {
        "library_name": "peft" if hasattr(model, "peft_config") else "transformers" if config is not None else None,
        "base_model": base_model if base_model and not Path(base_model).exists() else None,
    }

    def create(model_name: str | None = None, tags: str | Sequence[str] | None = None, **own: Any) -> None:
        if trainer.is_world_process_zero():
            more = [tags] if isinstance(tags, str) else list(tags or ())
            write_card(folder, summary=summary, model_name=model_name, tags=more, **{**data, **own})

    trainer.create_model_card = create  # type: ignore[assignment]


def write_card(
    folder: Path, *, summary: str, model_name: str | None = None, tags: Sequence[str] = (), **data: Any
) -> Path:
    """Write README.md into the folder of a finished run, from the run's own record; returns its path.

    Args:
        folder: the run's; it has `schedule.png` and `loss.png` already.
        summary: one line with the outcome.
        model_name: heading; None: the folder's name.
        tags: beside `hfwarmup`.
        data: further metadata, as `huggingface_hub.ModelCardData` names it.
    """
    run = read_run(folder)
    plan = run.about.get("plan") or {"reasons": (), "warnings": ()}
    card = ModelCard.from_template(
        ModelCardData(tags=list(dict.fromkeys(["hfwarmup", *tags])), **data),
        template_path=str(TEMPLATE),
        name=model_name or run.name,
        summary=summary,
        facts=facts_of(run),
        reasons=[*plan["reasons"], *plan["warnings"]],
        commands=run.about.get("commands", ()),
        results=results_of(run),
        environment=environment_of(run),
    )
    card.save(folder / "README.md")
    return folder / "README.md"
