"""`hfwarmup env` says what a bug report needs and nothing that is private."""

from __future__ import annotations

import platform
from importlib.metadata import version

from accelerate.commands.config import config_args
from typer.testing import CliRunner

from hfwarmup.cli import app


def facts() -> dict[str, str]:
    lines = CliRunner().invoke(app, ["env"]).output.splitlines()
    return {line[:18].strip(): line[19:] for line in lines}


def test_the_facts(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    found = facts()
    for package in ("hfwarmup", "torch", "transformers", "accelerate"):
        assert found[package] == version(package)
    assert found["deepspeed"] == "not installed"
    assert found["python"].startswith(platform.python_version())
    assert found["precision auto"].partition(":")[0] in ("bf16", "fp16", "fp32")
    assert "OMP_NUM_THREADS=3" in found["environment"].split()
    assert "secret" not in str(found)


def test_of_accelerates_config_only_what_a_launch_is(tmp_path, monkeypatch):
    config = tmp_path / "default_config.yaml"
    monkeypatch.setattr(config_args, "default_config_file", str(config))
    assert facts()["accelerate config"] == "no default config"
    config.write_text("distributed_type: MULTI_GPU\nnum_processes: 8\nmain_process_ip: 10.1.2.3\n")
    assert facts()["accelerate config"] == "distributed_type=MULTI_GPU num_processes=8"
