"""`hfwarmup init`: copy a recipe, to change it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfwarmup.errors import UserError
from hfwarmup.planning.recipe_files import CONFIGS, config_folder, find_recipe


def init(
    recipe: Annotated[str, typer.Argument(help="the name of a recipe; `hfwarmup list` shows them", show_default=False)],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="where the copies go; made if missing")] = Path(),
) -> None:
    """Copy a recipe and its configs, so that you can run and change them there. No file is overwritten."""
    script = find_recipe(recipe)
    copies = {script: folder / script.name}
    for source in sorted([*config_folder(recipe).glob("*.yaml"), *(CONFIGS / "accelerate").glob("*.yaml")]):
        copies[source] = folder / "configs" / source.parent.name / source.name
    texts = {target: source.read_text(encoding="utf-8") for source, target in copies.items()}
    changed = [target for target, text in texts.items() if target.exists() and _differs(target, text)]
    if changed:
        raise UserError(f"{', '.join(map(str, changed))}: already exists with different content; nothing was copied.")
    for target, text in texts.items():
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="")
            typer.echo(target)
    typer.echo(_how_to_run(recipe, folder))


def _differs(target: Path, text: str) -> bool:
    return not target.is_file() or target.read_text(encoding="utf-8") != text


def _how_to_run(recipe: str, folder: Path) -> str:
    enter = "" if folder == Path() else f"cd {folder}\n"
    config = f"configs/{recipe}/smoke.yaml"
    extra = "pip install 'hfwarmup[sft]'\n" if recipe == "finetune_sft" else ""
    return (
        f"\n{enter}{extra}hfwarmup plan {config}\npython {recipe}.py --config {config}\n"
        "accelerate launch --config_file configs/accelerate/multi_gpu.yaml --num_processes 8 "
        f"{recipe}.py --config {config}"
    )
