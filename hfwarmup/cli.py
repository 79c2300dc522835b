"""The command line: look at a run before it starts. `plan` and `plot` need neither torch nor transformers."""

from __future__ import annotations

import typer

from hfwarmup.commands.find_lr import find_lr
from hfwarmup.commands.list import list_names
from hfwarmup.commands.plan import plan
from hfwarmup.commands.plot import plot
from hfwarmup.commands.shared import WITH_SETTINGS, one_line_errors

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)

app.command("plan", context_settings=WITH_SETTINGS)(one_line_errors(plan))
app.command("plot", context_settings=WITH_SETTINGS)(one_line_errors(plot))
app.command("find-lr", context_settings=WITH_SETTINGS)(one_line_errors(find_lr))
app.command("list")(one_line_errors(list_names))

if __name__ == "__main__":
    app()
