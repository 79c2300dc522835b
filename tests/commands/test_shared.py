"""How the commands end where something is wrong with a file."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from hfwarmup.cli import app
from hfwarmup.commands.shared import one_line_errors


@pytest.mark.parametrize(
    ("words", "endings"),
    [
        (["plot", "no.yaml"], ".png, .svg or .csv"),
        (["find-lr", "no.yaml", "--range_updates", "0"], ".png"),
        (["report", "no"], ".html"),
    ],
)
def test_an_output_that_cannot_be_is_said_before_any_work(words, endings, tmp_path):
    suffix = endings.split(",")[0]
    for name, remedy in (
        ("out.txt", f"choose a name that ends in {endings}."),
        (f"none/out{suffix}", f"the folder {tmp_path / 'none'} does not exist; make it, or choose another."),
    ):
        found = CliRunner().invoke(app, [*words, "-o", str(tmp_path / name)])
        assert found.exception.code == f"error: output={tmp_path / name}: {remedy}"


def test_an_error_of_the_system_on_a_file_is_one_line(tmp_path):
    def read():
        (tmp_path / "none").open()

    with pytest.raises(SystemExit, match=rf"\Aerror: {tmp_path}/none: No such file or directory\.\Z"):
        one_line_errors(read)()


def test_an_error_that_names_no_file_keeps_its_traceback():
    def fail():
        raise OSError("the hub is away")

    with pytest.raises(OSError, match="the hub is away"):
        one_line_errors(fail)()
