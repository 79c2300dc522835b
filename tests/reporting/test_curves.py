"""A picture shows the numbers that it was given."""

from __future__ import annotations

import math
import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from hfwarmup.reporting.curves import MAX_POINTS, plot_learning_rates, plot_losses, plot_step_sizes

ROOT = Path(__file__).parents[2]
PLANNED = [0.0, 0.5, 1.0, 0.75, 0.25]
APPLIED = [(0, 0.0), (1, 0.5), (2, 1.0)]
LOG = [
    {"step": 1, "loss": 3.0, "learning_rate": 0.5},
    {"step": 2, "loss": 2.5},
    {"step": 2, "eval_loss": 2.75},
    {"step": 4, "eval_loss": 2.125},
    {"step": 4, "train_loss": 9.0, "train_runtime": 1.0},
]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, and they are saved."""
    saved, save = [], Figure.savefig

    def record(figure, *args, **kwargs):
        saved.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", record)
    return saved


def lines_of(axes) -> dict[str, list[tuple[float, float]]]:
    return {
        line.get_label(): list(zip(*(map(float, values) for values in line.get_data()), strict=True))
        for line in axes.get_lines()
    }


def legend_of(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def shaded(axes) -> list[tuple[float, float]]:
    """From where to where the picture is shaded."""
    return [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches]


def test_the_learning_rates_planned_and_applied(tmp_path, figures):
    plot_learning_rates(tmp_path / "lr.png", planned=PLANNED, applied=APPLIED, warmup_steps=2, title="a run")
    (axes,) = figures[0].axes
    assert lines_of(axes) == {"planned": list(enumerate(PLANNED)), "applied": APPLIED}
    assert shaded(axes) == [(0, 2)]
    assert set(legend_of(axes)) == {"planned", "applied", "warmup, 2 updates"}
    assert axes.get_title(loc="left") == "a run"
    assert axes.get_ylim()[0] == 0


def test_a_run_that_made_no_update_and_has_no_warmup_is_drawn_too(tmp_path, figures):
    plot_learning_rates(tmp_path / "lr.png", planned=PLANNED, applied=[], warmup_steps=0, title="a run")
    (axes,) = figures[0].axes
    assert lines_of(axes) == {"planned": list(enumerate(PLANNED))}
    assert shaded(axes) == []


@pytest.mark.parametrize("updates", [1, MAX_POINTS - 1, 10 * MAX_POINTS + 5])
def test_a_run_of_any_length_is_drawn_whole_and_with_few_points(updates, tmp_path, figures):
    planned = [float(step) for step in range(updates)]
    plot_learning_rates(tmp_path / "lr.png", planned=planned, applied=[], warmup_steps=0, title="a run")
    points = lines_of(figures[0].axes[0])["planned"]
    assert all(step == rate for step, rate in points)
    assert points[0] == (0, 0)
    assert updates - points[-1][0] <= max(1, updates / MAX_POINTS)  # to the last update, but for a point's width
    assert len(points) < 2 * MAX_POINTS


def test_the_losses_of_a_log(tmp_path, figures):
    plot_losses(tmp_path / "loss.png", log_history=LOG, warmup_steps=2)
    (axes,) = figures[0].axes
    assert lines_of(axes) == {"train": [(1, 3.0), (2, 2.5)], "validation": [(2, 2.75), (4, 2.125)]}
    assert shaded(axes) == [(0, 2)]
    assert "2.125" in axes.get_title(loc="left")


def test_a_log_without_evaluations_is_drawn_too(tmp_path, figures):
    plot_losses(tmp_path / "loss.png", log_history=LOG[:2], warmup_steps=0)
    assert list(lines_of(figures[0].axes[0])) == ["train"]


def test_an_empty_log_is_an_empty_picture(tmp_path):
    plot_losses(tmp_path / "loss.png", log_history=[], warmup_steps=0)
    assert (tmp_path / "loss.png").stat().st_size


def test_schedules_side_by_side(tmp_path, figures):
    schedules = {f"schedule {n}": ((lambda step, n=n: step * n), n) for n in range(1, 6)}
    gallery = runpy.run_path(str(ROOT / "docs" / "gallery.py"))
    gallery["plot_schedules"](tmp_path / "all.png", schedules, total_steps=3)
    panels = {axes.get_title(): axes for axes in figures[0].axes if axes.get_visible()}
    assert list(panels) == list(schedules)
    for n, axes in enumerate(panels.values(), start=1):
        assert list(lines_of(axes).values()) == [[(0, 0), (1, n), (2, 2 * n)]]
        assert shaded(axes) == [(0, n)]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_suffix_chooses_the_format(suffix, tmp_path):
    path = tmp_path / f"picture.{suffix}"
    plot_losses(path, log_history=LOG, warmup_steps=2)
    if suffix == "png":
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    else:
        assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_a_huge_loss_does_not_flatten_the_others(tmp_path, figures):
    """The lowest loss is 1 below the first, so the picture ends 1 above it; what is higher is marked at that edge."""
    points = [(0.5, 2.5e4), (0.1, 6.0), (0.2, 8.5), (1.0, math.inf), (2.0, math.nan)]
    plot_step_sizes(tmp_path / "steps.png", start_loss=7.0, series={"one": points}, marks={"peak": 0.1, "eta_c": 0.15})
    (axes,) = figures[0].axes
    low, high = axes.get_ylim()
    assert (low, high) == (pytest.approx(5.9), 8.0)
    assert lines_of(axes)["_above"] == [(0.5, 8.0), (0.2, 8.0), (1.0, 8.0), (2.0, 8.0)]
    assert lines_of(axes)["one"][:3] == [(0.1, 6.0), (0.2, 8.5), (0.5, 2.5e4)]
    assert set(legend_of(axes)) == {"one", "before the step 7", "peak 0.1", "eta_c 0.15"}


def test_where_no_step_lowers_the_loss_the_picture_ends_at_twice_the_first(tmp_path, figures):
    plot_step_sizes(tmp_path / "steps.png", start_loss=7.0, series={"one": [(0.1, 9.0)]}, marks={"peak": 0.1})
    (axes,) = figures[0].axes
    assert axes.get_ylim()[1] == 14.0
    assert lines_of(axes)["_above"] == []
