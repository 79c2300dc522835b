"""`hfwarmup find-lr`: learning rates measured where a run would begin."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hfwarmup.commands.shared import ConfigArgument, check_output, script_for
from hfwarmup.errors import UserError

if TYPE_CHECKING:
    from hfwarmup.measuring.range_test import RangeTest
    from hfwarmup.trainer.find_lr import FoundLr

LIMITS = """\
What this says: along the optimizer's first step on one batch, eta_c is where the loss stops falling. Larger first steps
overshoot, so a warmup need not start below it. What it does not say: how long a warmup must be. For Adam on a pre-LN
transformer eta_c lies far above sensible peaks, and a warmup to a peak below it still helps (docs/predictors.md). The
range test is short and misses late effects too. Choose the peak and the warmup by comparing runs."""


def find_lr(
    context: typer.Context,
    config: ConfigArgument,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="a .png of both curves")] = None,
    range_updates: Annotated[
        int, typer.Option("--range_updates", "--range-updates", help="updates of Smith's range test; 0: none")
    ] = 50,
) -> None:
    """Run a config's recipe up to its first update and measure there: the critical learning rate, and a range test.

    Every setting can be given anew as --key value. The recipe does not train, and leaves no run folder.
    """
    check_output(output, [".png"])
    if range_updates < 3 and range_updates != 0:
        raise UserError(f"range_updates={range_updates}: give 3 or more, or 0 for no range test.")
    script = script_for(config)
    from hfwarmup.trainer.find_lr import find_lr as run

    found = run(script, ["--config", str(config), *context.args], range_updates=range_updates)
    typer.echo(_report(found))
    if output is not None:
        from hfwarmup.reporting.curves import plot_step_sizes

        series = {f"first step of {found.optimizer}, one batch": found.critical.points[1:]}
        if found.range_test is not None and found.range_test.points:
            series["range test, smoothed"] = found.range_test.points
        marks = {"peak": found.peak_lr} | ({"eta_c": found.critical.lr} if found.critical.found else {})
        plot_step_sizes(output, start_loss=found.critical.points[0][1], series=series, marks=marks)


def _report(found: FoundLr) -> str:
    from hfwarmup.reporting.text import draw_losses

    parts = [
        f"loss after one step of {found.optimizer}, on the batch of its gradient, by learning rate",
        draw_losses(found.critical.points),
        *_critical(found),
    ]
    if found.range_test is not None and found.range_test.points:
        points = found.range_test.points
        parts += [
            f"Smith's range test: smoothed loss of {len(points)} updates with a climbing learning rate",
            draw_losses(points[:: max(1, len(points) // 16)]),
            _range(found.range_test),
        ]
    return "\n".join([*parts, "", LIMITS])


def _critical(found: FoundLr) -> list[str]:
    from hfwarmup.measuring.critical_lr import saved_steps

    critical = found.critical
    if critical.lr == 0.0:
        return ["no tested step lowered the loss: there is no critical learning rate"]
    if not math.isfinite(critical.lr):
        return [f"every step up to {critical.lower:.3g} lowered the loss: the critical learning rate is higher"]
    lines = [
        f"critical learning rate eta_c = {critical.lr:.3g}, between {critical.lower:.3g} and {critical.upper:.3g}, "
        f"{critical.forwards} forward passes; the peak {found.peak_lr:.3g} is {found.peak_lr / critical.lr:.2g} eta_c"
    ]
    if found.warmup_steps:
        saved = saved_steps(critical, peak_lr=found.peak_lr, warmup_steps=found.warmup_steps)
        lines.append(
            f"a warmup from eta_c (initial_lr: auto) saves T_save = T_w min(1, eta_c / peak) - forwards / 2 = "
            f"{saved:.1f} of {found.warmup_steps} updates"
        )
    return lines


def _range(found: RangeTest) -> str:
    if math.isnan(found.steepest) or math.isnan(found.lowest):
        return "the loss never falls: no range of peaks"
    line = f"peaks to try: {found.steepest:.3g} (steepest fall) to {found.lowest:.3g} (lowest loss)"
    ends = ["the loss may begin to fall lower"] * found.open_below + [
        "the loss may fall further above"
    ] * found.open_above
    return f"{line}; outside the tested range {', '.join(ends)}" if ends else line
