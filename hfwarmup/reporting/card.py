"""The model card of a run: what was trained and how, in the README.md that a push to the hub publishes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from hfwarmup.run_folder.data import read_run
from hfwarmup.run_folder.facts import environment_of, facts_of, results_of

TEMPLATE = Path(__file__).with_name("template") / "card.md"


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
