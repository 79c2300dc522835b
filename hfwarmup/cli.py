"""Look at a run before it starts: what it will do, its learning rates, what is wrong with its config."""

from __future__ import annotations

import typer

from hfwarmup.commands.diagnose import diagnose
from hfwarmup.commands.env import env
from hfwarmup.commands.find_lr import find_lr
from hfwarmup.commands.init import init
from hfwarmup.commands.list import list_names
from hfwarmup.commands.plan import plan
from hfwarmup.commands.plot import plot
from hfwarmup.commands.report import report
from hfwarmup.commands.shared import WITH_SETTINGS, one_line_errors
from hfwarmup.commands.validate import validate

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help=__doc__,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("plan", context_settings=WITH_SETTINGS)(one_line_errors(plan))
app.command("plot", context_settings=WITH_SETTINGS)(one_line_errors(plot))
app.command("find-lr", context_settings=WITH_SETTINGS)(one_line_errors(find_lr))
app.command("validate")(one_line_errors(validate))
app.command("report")(one_line_errors(report))
app.command("diagnose")(one_line_errors(diagnose))
app.command("init")(one_line_errors(init))
app.command("list")(one_line_errors(list_names))
app.command("env")(one_line_errors(env))

if __name__ == "__main__":
    app()
