"""The model card of a run: what was trained and how. It is the README.md that a push to the hub publishes."""

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
    """Write README.md into the folder of a finished run, from what the folder records. Returns its path.

    Args:
        folder: the run's folder, where `schedule.png` and `loss.png` already are.
        summary: the result, in one line.
        model_name: the heading; by default the folder's name.
        tags: tags beside `hfwarmup`.
        data: more metadata, under the names of `huggingface_hub.ModelCardData`.
    """
    run = read_run(folder)
    plan = run.manifest.get("plan") or {"reasons": (), "warnings": ()}
    card = ModelCard.from_template(
        ModelCardData(tags=list(dict.fromkeys(["hfwarmup", *tags])), **data),
        template_path=str(TEMPLATE),
        name=model_name or run.name,
        summary=summary,
        facts=facts_of(run),
        reasons=[*plan["reasons"], *plan["warnings"]],
        commands=run.manifest.get("commands", ()),
        results=results_of(run),
        environment=environment_of(run),
    )
    card.save(folder / "README.md")
    return folder / "README.md"
