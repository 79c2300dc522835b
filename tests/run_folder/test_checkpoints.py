"""A run's folder is never overwritten, and never resumed in silence."""

from __future__ import annotations

import re
import shutil

import pytest

from hfwarmup.recipe.finished import train_or_load_finished
from hfwarmup.run_folder.checkpoints import find_checkpoint

HOLDS = (
    "output_dir={} holds a run already; choose another output_dir, or go on from its last checkpoint with resume=auto."
)
NO_CHECKPOINT = "resume=must, and {} has no checkpoint; give the run's own output_dir, or resume=auto."
NOT_TO_RESUME = (
    "resume=auto, and {} holds files but no checkpoint to go on from; choose another output_dir, or empty it."
)
CASES = [
    # what the folder holds (None: it is not there), resume, the checkpoint or what is said
    (None, "never", None),
    (None, "auto", None),
    (None, "must", NO_CHECKPOINT),
    ([], "never", None),
    ([], "auto", None),
    ([], "must", NO_CHECKPOINT),
    ([".gitkeep"], "never", None),  # hidden files are not a run's
    ([".gitkeep"], "auto", None),
    ([".gitkeep"], "must", NO_CHECKPOINT),
    (["model.safetensors"], "never", HOLDS),
    (["model.safetensors"], "auto", NOT_TO_RESUME),
    (["model.safetensors"], "must", NO_CHECKPOINT),
    (["run.json", "log.jsonl", "config.yaml"], "never", HOLDS),  # killed before its first checkpoint
    (["run.json", "log.jsonl", "config.yaml"], "auto", None),
    (["run.json", "log.jsonl", "config.yaml"], "must", NO_CHECKPOINT),
    (["run.json", "model.safetensors"], "auto", NOT_TO_RESUME),
    (["checkpoint-5/"], "never", HOLDS),
    (["checkpoint-5/"], "auto", "checkpoint-5"),
    (["checkpoint-5/"], "must", "checkpoint-5"),
    (["checkpoint-900/", "checkpoint-1000/", "loss.png"], "auto", "checkpoint-1000"),  # by number, not by name
    (["checkpoint-900/", "checkpoint-1000/", "loss.png"], "must", "checkpoint-1000"),
    (["checkpoint-best/"], "auto", NOT_TO_RESUME),
    (["checkpoint-7"], "must", NO_CHECKPOINT),  # a file of that name
    (["checkpoint-7/", "checkpoint-14~/"], "auto", "checkpoint-7"),  # killed while it wrote the last one
    (["checkpoint-7/", "checkpoint-14~/"], "must", "checkpoint-7"),
    (["checkpoint-7~/"], "never", HOLDS),
    (["checkpoint-7~/"], "auto", None),  # killed while it wrote the first one
    (["checkpoint-7~/"], "must", NO_CHECKPOINT),
]


@pytest.fixture
def folder(tmp_path):
    """Makes the folder `run` with these names in it; / at the end is a checkpoint of the Trainer, ~/ half of one."""

    def make(names):
        root = tmp_path / "run"
        if names is not None:
            root.mkdir()
        for name in names or ():
            path = root / name.rstrip("~/")
            if name.endswith("/"):
                path.mkdir()
                (path / "trainer_state.json").write_text('{"epoch":' if name.endswith("~/") else "{}")
            else:
                path.write_text("")
        return root

    return make


def test_a_half_written_checkpoint_is_named(folder, caplog):
    root = folder(["checkpoint-7/", "checkpoint-14~/"])
    find_checkpoint(root, "auto")
    assert caplog.messages == ["ignoring checkpoint-14: incomplete, the run was killed while saving it"]


def listing(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*")) if root.exists() else None


@pytest.mark.parametrize(("names", "resume", "expected"), CASES)
@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["text", "path"])
def test_the_checkpoint_to_resume_from(names, resume, expected, kind, folder):
    root = folder(names)
    before = listing(root)
    if expected is None or expected.startswith("checkpoint-"):
        assert find_checkpoint(kind(root), resume) == (expected and str(root / expected))
    else:
        with pytest.raises(ValueError, match=rf"\A{re.escape(expected.format(root))}\Z"):
            find_checkpoint(kind(root), resume)
    assert listing(root) == before  # nothing is touched


@pytest.mark.parametrize("resume", ["never", "auto", "must"])
def test_a_file_in_the_folders_place_is_one_line(tmp_path, resume):
    file = tmp_path / "run"
    file.touch()
    with pytest.raises(ValueError, match=rf"\A{re.escape(f'output_dir={file} is a file; name a folder.')}\Z"):
        find_checkpoint(file, resume)


@pytest.fixture
def best_is_first(make_trainer, blocks, tmp_path):
    """A trainer whose peak ruins its model, so that the first of its three checkpoints is the best."""

    def make():
        return make_trainer(
            trainer={"eval_dataset": blocks(8)},
            output_dir=str(tmp_path / "run"),
            learning_rate=1.0,
            lr_scheduler_type="gradual_warmup",
            warmup_steps=6,
            max_steps=6,
            eval_strategy="steps",
            eval_steps=2,
            save_strategy="steps",
            save_steps=2,
            load_best_model_at_end=True,
            metric_for_best_model="loss",
        )

    return make


def test_a_run_at_its_end_is_reported_on_its_best_weights_again(best_is_first, tmp_path, caplog):
    first = best_is_first()
    train_or_load_finished(first, None, total_steps=6)
    loss = first.evaluate()["eval_loss"]
    shutil.move(tmp_path / "run", tmp_path / "moved")
    again = best_is_first()
    train_or_load_finished(again, str(tmp_path / "moved" / "checkpoint-6"), total_steps=6)
    assert again.evaluate()["eval_loss"] == loss
    assert again.state.best_model_checkpoint == str(tmp_path / "moved" / "checkpoint-2")
    shutil.rmtree(tmp_path / "moved" / "checkpoint-2")
    last = best_is_first()
    train_or_load_finished(last, str(tmp_path / "moved" / "checkpoint-6"), total_steps=6)
    assert last.evaluate()["eval_loss"] > loss
    assert "the best checkpoint, checkpoint-2, is gone; loading the weights of the last one instead" in caplog.messages
