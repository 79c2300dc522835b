"""Names are enough: what a Trainer applies when it is told a schedule's name, and nothing else."""

from __future__ import annotations

import json
import logging
import math
import pickle
import re
import subprocess
import sys
from itertools import repeat

import pytest
import torch
import transformers.trainer
from transformers import HfArgumentParser, Trainer, TrainerCallback, TrainingArguments, get_scheduler
from transformers.trainer_utils import SchedulerType

import hfwarmup
from hfwarmup.schedules import named
from hfwarmup.schedules.named import SCHEDULES, schedule_names
from hfwarmup.trainer.warmup_callback import WarmupCallback

ETA, ETA0 = 1e-3, 1e-7
UPDATES = range(8)

ONLY_BY_BETA2 = {"untuned_linear", "untuned_exponential", "radam_warmup", "gi_warmup"}


def gradual(t: int, *, peak: float = ETA, warmup_steps: int = 4) -> float:
    return ETA0 + (peak - ETA0) * min(1, t / warmup_steps)


def linear_fall(t: int, *, peak: float = ETA, warmup_steps: int = 4, total: int = 8) -> float:
    """Gradual, then linear to 0 at `total`."""
    if t <= warmup_steps:
        return gradual(t, peak=peak, warmup_steps=warmup_steps)
    return peak * max(0, total - t) / (total - warmup_steps)


def exponential(t: int) -> float:
    return ETA * (ETA0 / ETA) ** max(0, 1 - t / 4)


def cosine(t: int) -> float:
    floor = 0.1 * ETA
    return gradual(t) if t <= 4 else floor + (ETA - floor) * (1 + math.cos(math.pi * (t - 4) / 4)) / 2


FORMULAS = {"gradual_warmup": gradual, "exponential_warmup": exponential, "warmup_cosine": cosine}


def exactly(message: str) -> str:
    """A pattern for `match=` that is the whole message."""
    return rf"\A{re.escape(message)}\Z"


def same(rates):
    return pytest.approx(list(rates), rel=1e-12, abs=0)


def warnings_of(caplog) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name.startswith("hfwarmup")
    ]


# The names


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_name_is_valid_in_the_arguments_and_in_what_they_are_written_to(name, tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), lr_scheduler_type=name, use_cpu=True)
    assert args.lr_scheduler_type is SchedulerType(name)
    assert args.to_dict()["lr_scheduler_type"] == name
    assert json.loads(args.to_json_string())["lr_scheduler_type"] == name


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_name_is_valid_as_a_flag_and_in_a_dict(name, tmp_path):
    parser = HfArgumentParser(TrainingArguments)
    (parsed,) = parser.parse_args_into_dataclasses(
        ["--output_dir", str(tmp_path), "--use_cpu", "--lr_scheduler_type", name]
    )
    (read,) = parser.parse_dict({"output_dir": str(tmp_path), "use_cpu": True, "lr_scheduler_type": name})
    assert parsed.lr_scheduler_type is read.lr_scheduler_type is SchedulerType(name)


def test_options_are_given_as_json_on_the_command_line(tmp_path):
    flags = ["--lr_scheduler_type", "warmup_cosine", "--lr_scheduler_kwargs", '{"final_ratio": 0.2}']
    (args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(
        ["--output_dir", str(tmp_path), "--use_cpu", *flags]
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(
        args.lr_scheduler_type, optimizer, 1, 4, scheduler_specific_kwargs=args.lr_scheduler_kwargs
    )
    assert scheduler.spec.learning_rates(4) == [0.2]


@pytest.mark.parametrize("name", SCHEDULES)
def test_get_scheduler_makes_the_schedule_of_every_name(name):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=ETA, betas=(0.9, 0.95))
    warmup_steps = 0 if name in ONLY_BY_BETA2 else 5
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup_steps, num_training_steps=50)
    options = {"beta2": 0.95} if name in ONLY_BY_BETA2 else {}
    schedule = hfwarmup.get_schedule(name, peak_lr=ETA, num_warmup_steps=warmup_steps, num_training_steps=50, **options)
    assert isinstance(scheduler, hfwarmup.WarmupScheduler)
    assert scheduler.get_last_lr() == [schedule(0)]


def test_a_misspelt_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"gradual_warmpu is not a valid SchedulerType.*'gradual_warmup'"):
        TrainingArguments(output_dir=str(tmp_path), lr_scheduler_type="gradual_warmpu", use_cpu=True)


def test_registering_again_changes_nothing():
    before = list(SchedulerType), list(transformers.trainer.DEFAULT_CALLBACKS)
    hfwarmup.register()
    assert (list(SchedulerType), list(transformers.trainer.DEFAULT_CALLBACKS)) == before
    assert transformers.trainer.DEFAULT_CALLBACKS.count(WarmupCallback) == 1


# What is applied


@pytest.mark.parametrize("name", FORMULAS)
def test_a_trainer_applies_a_name_and_nothing_else(name, make_trainer, probe, caplog):
    caplog.set_level(logging.INFO, logger="hfwarmup")
    make_trainer(probe, lr_scheduler_type=name, warmup_steps=4).train()
    assert probe.rates == same(FORMULAS[name](t) for t in UPDATES)
    assert warnings_of(caplog) == []
    last = FORMULAS[name](7)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("hfwarmup")] == [
        f"schedule {name}: learning rate 1e-07 at update 0, 0.001 at update 4, {last:g} at update 7 "
        "(2 parameter groups)"
    ]


@pytest.mark.parametrize("accumulation", [1, 3])
def test_an_update_is_an_optimizer_step_whatever_is_accumulated(accumulation, make_trainer, probe):
    make_trainer(
        probe, lr_scheduler_type="gradual_warmup", warmup_steps=4, gradient_accumulation_steps=accumulation
    ).train()
    assert probe.rates == same(gradual(t) for t in UPDATES)


def test_a_second_training_starts_at_the_first_rate_again(make_trainer, probe):
    trainer = make_trainer(probe, lr_scheduler_type="warmup_linear", warmup_steps=4, weight_decay=0.1)
    trainer.train()
    trainer.train()
    assert probe.rates == same([linear_fall(t) for t in UPDATES] * 2)
    assert {group["weight_decay"] for group in trainer.optimizer.param_groups} == {0.1, 0.0}


@pytest.mark.parametrize("name", ["gradual_warmup", "exponential_warmup", "warmup_cosine"])
def test_trl_applies_a_name_and_nothing_else(name, tiny_llama, probe, tmp_path):
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate(["<s>", "</s>", "<unk>", "a", "b", "c", "d"])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")),
        eos_token="</s>",
        pad_token="</s>",
        unk_token="<unk>",
    )
    args = trl.SFTConfig(
        output_dir=str(tmp_path),
        lr_scheduler_type=name,
        learning_rate=ETA,
        warmup_steps=4,
        max_steps=8,
        per_device_train_batch_size=2,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
    )
    dataset = Dataset.from_dict({"input_ids": [[3, 4, 5, 6], [6, 5, 4, 3]] * 4})
    trl.SFTTrainer(
        tiny_llama(), args=args, train_dataset=dataset, processing_class=tokenizer, callbacks=[probe]
    ).train()
    assert probe.rates == same(FORMULAS[name](t) for t in UPDATES)


# Pickles

WITHOUT_HFWARMUP = """
import sys, torch
from importlib.abc import MetaPathFinder

class NotInstalled(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hfwarmup":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
args = torch.load(sys.argv[1], weights_only=False)
print(type(args.lr_scheduler_type).__name__, args.lr_scheduler_type, type(args.optim).__name__, args.optim)
print(args.to_dict()["lr_scheduler_type"], args.lr_scheduler_kwargs)
"""

IN_ANOTHER_PROCESS = """
import pickle, sys, torch
assert "hfwarmup" not in sys.modules
with open(sys.argv[1], "rb") as file:
    args, callback = pickle.load(file)
from transformers import get_scheduler
optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
print(get_scheduler(args.lr_scheduler_type, optimizer, 2, 4, args.lr_scheduler_kwargs).get_last_lr())
"""


def run_program(program: str, *words) -> list[str]:
    """The lines that a program prints in a process of its own."""
    result = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_training_args_bin_opens_where_hfwarmup_is_not_installed(tmp_path):
    own = {"lr_scheduler_type": "gradual_warmup", "lr_scheduler_kwargs": {"initial_lr": 0.25}, "optim": "gi_adamw"}
    torch.save(TrainingArguments("run", use_cpu=True, report_to="none", **own), tmp_path / "training_args.bin")
    assert run_program(WITHOUT_HFWARMUP, tmp_path / "training_args.bin") == [
        "str gradual_warmup str gi_adamw",
        "gradual_warmup {'initial_lr': 0.25}",
    ]


@pytest.mark.parametrize("name", ["gradual_warmup", "mine"])
def test_training_args_bin_trains_with_the_same_schedule(name, mine, make_trainer, tiny_llama, blocks, probe, tmp_path):
    trainer = make_trainer(probe, lr_scheduler_type=name, warmup_steps=4, optim="gi_adamw")
    torch.save(trainer.args, tmp_path / "training_args.bin")
    trainer.train()
    before, probe.rates = probe.rates, []
    args = torch.load(tmp_path / "training_args.bin", weights_only=False)
    again = Trainer(tiny_llama(), args, train_dataset=blocks(8), callbacks=[probe])
    assert (again.args.lr_scheduler_type, again.args.optim) == (SchedulerType(name), trainer.args.optim)
    again.train()
    assert probe.rates == before
    assert type(again.optimizer.optimizer) is hfwarmup.GIAdamW
    again.create_model_card()  # it reads lr_scheduler_type.value


def test_a_schedule_of_transformers_stays_a_member():
    args = TrainingArguments("run", lr_scheduler_type="cosine", use_cpu=True)
    assert pickle.loads(pickle.dumps(args)).lr_scheduler_type is SchedulerType.COSINE


def test_a_pickled_trainer_finds_its_names_in_another_process(tmp_path):
    args = TrainingArguments(
        "run", lr_scheduler_type="gradual_warmup", lr_scheduler_kwargs={"initial_lr": 0.25}, use_cpu=True
    )
    (tmp_path / "trainer.pkl").write_bytes(pickle.dumps((args, WarmupCallback())))
    assert run_program(IN_ANOTHER_PROCESS, tmp_path / "trainer.pkl") == ["[0.25]"]


def test_a_schedule_that_this_process_did_not_register_is_one_line(make_trainer, tiny_llama):
    args = make_trainer().args
    args.lr_scheduler_type = "of_another_process"
    message = (
        "lr_scheduler_type='of_another_process' is not registered; call "
        "hfwarmup.register('of_another_process', factory) first."
    )
    with pytest.raises(ValueError, match=exactly(message)):
        Trainer(tiny_llama(), args)


# A user's own schedule


def triangle(*, peak_lr, num_warmup_steps, num_training_steps, floor=0.0):
    """Up from `floor` and down to it."""

    def schedule(t: int) -> float:
        height = (
            t / num_warmup_steps
            if t < num_warmup_steps
            else (num_training_steps - t) / (num_training_steps - num_warmup_steps)
        )
        return floor + (peak_lr - floor) * height

    return schedule


@pytest.fixture
def mine(monkeypatch) -> str:
    """The name of a user's own schedule, forgotten afterwards (but for the enum, which forgets nothing)."""
    monkeypatch.setattr(named, "_factories", {})
    hfwarmup.register("mine", triangle)
    return "mine"


def test_a_users_own_schedule_trains_with_its_options_and_resumes(mine, make_trainer, probe):
    own = {"lr_scheduler_type": mine, "warmup_steps": 2, "lr_scheduler_kwargs": {"floor": 1e-4}}
    trainer = make_trainer(probe, save_strategy="steps", save_steps=3, **own)
    trainer.train()
    # 1e-4 + 9e-4 of: 0, 1/2, then 1 down to 1/6
    assert probe.rates == pytest.approx([1e-4, 5.5e-4, 1e-3, 8.5e-4, 7e-4, 5.5e-4, 4e-4, 2.5e-4])
    uninterrupted, probe.rates = probe.rates, []
    make_trainer(probe, **own).train(resume_from_checkpoint=f"{trainer.args.output_dir}/checkpoint-3")
    assert probe.rates == uninterrupted[3:]


def test_registering_the_same_factory_again_changes_nothing(mine):
    before = list(SchedulerType)
    hfwarmup.register(mine, triangle)
    assert list(SchedulerType) == before


def test_a_function_that_is_defined_again_takes_the_place_of_the_one_before(make_trainer, probe, monkeypatch):
    monkeypatch.setattr(named, "_factories", {})

    def run_cell(rate):
        def flat(**_):
            return lambda _: rate

        hfwarmup.register("of_a_notebook", flat)

    run_cell(0.25)
    run_cell(0.5)
    make_trainer(probe, lr_scheduler_type="of_a_notebook", max_steps=1).train()
    assert probe.rates == [0.5]


def test_two_lambdas_are_not_one_function(monkeypatch):
    monkeypatch.setattr(named, "_factories", {})
    hfwarmup.register("of_a_lambda", lambda **_: lambda _: 1.0)
    with pytest.raises(ValueError, match=r"^schedule 'of_a_lambda' exists already; choose another name\.$"):
        hfwarmup.register("of_a_lambda", lambda **_: lambda _: 2.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cosine", triangle), "schedule 'cosine' is transformers' own; choose another name."),
        (("noam", triangle), "schedule 'noam' exists already; choose another name."),
        (("mine", lambda **_: float), "schedule 'mine' exists already; choose another name."),
        (("Linear", triangle), "schedule 'Linear' is transformers' own; choose another name."),
        (("reduce_on_plateau", triangle), "schedule 'reduce_on_plateau' is transformers' own; choose another name."),
        (("Noam", triangle), "schedule 'Noam' exists already as 'noam'; choose another name."),
        (("MINE", triangle), "schedule 'MINE' exists already as 'mine'; choose another name."),
        (("yours", 5), "schedule 'yours': factory=5 is not a function; give one that returns a schedule."),
        (("", triangle), "schedule '': give a name, as text."),
        (("yours", None), "register: factory is missing; give name and factory, or neither."),
        ((None, triangle), "register: name is missing; give name and factory, or neither."),
    ],
)
def test_a_name_that_cannot_be_registered_is_one_line(mine, arguments, message):
    before, known = list(SchedulerType), schedule_names()
    with pytest.raises(ValueError, match=exactly(message)):
        hfwarmup.register(*arguments)
    assert (list(SchedulerType), schedule_names()) == (before, known)


# The plateau

PLATEAU = {
    "lr_scheduler_type": "warmup_plateau",
    "warmup_steps": 4,
    "max_steps": 10,
    "eval_strategy": "steps",
    "eval_steps": 1,
}
HALVING = {"factor": 0.5, "patience": 1}


class Scripted:
    """compute_metrics that returns the values it was given, one an evaluation."""

    def __init__(self, values) -> None:
        self.values = iter(values)

    def __call__(self, predictions):
        return {"score": next(self.values)}


def test_a_plateau_warms_up_an_update_at_a_time_and_counts_its_patience_from_the_peak(make_trainer, blocks, probe):
    """The metric stalls from the first evaluation on. Evaluation n follows update n - 1."""
    trainer = {"eval_dataset": blocks(2), "compute_metrics": Scripted(repeat(1.0))}
    make_trainer(probe, trainer=trainer, lr_scheduler_kwargs={"metric": "score", **HALVING}, **PLATEAU).train()
    # evaluation 4 comes at the peak and is the first that counts; 5 and 6 are bad, one too many; then 7 and 8
    after = [ETA, ETA, ETA / 2, ETA / 2, ETA / 4, ETA / 4]
    assert probe.rates == same([*(gradual(t) for t in range(4)), *after])


def test_a_plateau_forgets_how_good_the_metric_was_before_the_peak(make_trainer, blocks, probe):
    """Perfect in the warmup, then falling: it is the fall that counts, so nothing is reduced."""
    values = [0.0, 0.0, 0.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0]
    trainer = {"eval_dataset": blocks(2), "compute_metrics": Scripted(values)}
    make_trainer(probe, trainer=trainer, lr_scheduler_kwargs={"metric": "score", **HALVING}, **PLATEAU).train()
    assert probe.rates == same(gradual(t) for t in range(10))


def test_a_plateau_may_rise(make_trainer, blocks, probe):
    values = [*range(6), *repeat(5.0, 4)]  # evaluation 6 is the best, 7 and 8 are bad
    trainer = {"eval_dataset": blocks(2), "compute_metrics": Scripted(values)}
    options = {"metric": "eval_score", "mode": "max", **HALVING}
    make_trainer(probe, trainer=trainer, lr_scheduler_kwargs=options, **PLATEAU).train()
    assert probe.rates == same([*(gradual(t) for t in range(8)), ETA / 2, ETA / 2])


@pytest.mark.parametrize("step", [2, 5, 7])  # in the warmup, at the first bad evaluation, at the second reduction's
def test_a_plateau_resumes_with_all_its_counters(step, make_trainer, blocks, probe):
    options = {"metric": "score", **HALVING}

    def train(checkpoint=None, **own):
        probe.rates = []
        trainer = {"eval_dataset": blocks(2), "compute_metrics": Scripted(repeat(1.0))}
        trainer = make_trainer(probe, trainer=trainer, lr_scheduler_kwargs=options, **{**PLATEAU, **own})
        trainer.train(resume_from_checkpoint=checkpoint)
        return trainer.args.output_dir, probe.rates

    folder, uninterrupted = train(save_strategy="steps", save_steps=step)
    assert train(f"{folder}/checkpoint-{step}")[1] == uninterrupted[step:]


def test_a_plateau_without_evaluations_is_an_error(make_trainer):
    trainer = make_trainer(**{**PLATEAU, "eval_strategy": "no"})
    message = "schedule 'warmup_plateau' needs evaluations; set eval_strategy to 'steps' or 'epoch'."
    with pytest.raises(ValueError, match=exactly(message)):
        trainer.train()


@pytest.mark.parametrize("eval_steps", [1, 10])  # before the end, and at the end
def test_a_misspelt_metric_is_an_error_that_names_what_there_is(eval_steps, make_trainer, blocks):
    own = {**PLATEAU, "eval_steps": eval_steps, "lr_scheduler_kwargs": {"metric": "eval_los"}}
    message = (
        "metric='eval_los' is in no evaluation; choose one of eval_loss, eval_runtime, eval_samples_per_second, "
        "eval_steps_per_second."
    )
    with pytest.raises(ValueError, match=exactly(message)):
        make_trainer(trainer={"eval_dataset": blocks(2)}, **own).train()


def test_a_corrected_metric_is_found_when_the_same_trainer_trains_again(make_trainer, blocks):
    own = {**PLATEAU, "lr_scheduler_kwargs": {"metric": "eval_los"}}
    trainer = make_trainer(trainer={"eval_dataset": blocks(2)}, **own)
    with pytest.raises(ValueError, match="is in no evaluation"):
        trainer.train()
    trainer.args.lr_scheduler_kwargs = {"metric": "eval_loss"}
    trainer.train()
    assert trainer.state.global_step == 10


@pytest.mark.parametrize("order", [("near", "far"), ("far", "near")])
def test_a_plateau_listens_to_one_of_several_evaluation_sets(order, make_trainer, blocks, probe):
    """factor 0.5 and patience 0 with a threshold that nothing reaches: every evaluation of `near` after the first
    at the peak halves the learning rate, and `far` does nothing."""
    options = {"metric": "eval_near_loss", "factor": 0.5, "patience": 0, "threshold": 0.999}
    own = {**PLATEAU, "max_steps": 8, "lr_scheduler_kwargs": options}
    make_trainer(probe, trainer={"eval_dataset": {name: blocks(2) for name in order}}, **own).train()
    assert probe.rates == same([*(gradual(t) for t in range(5)), ETA / 2, ETA / 4, ETA / 8])


# What it watches


@pytest.mark.parametrize("name", ["gradual_warmup", "warmup_cosine", "hfwarmup"])
def test_a_warmup_of_no_steps_is_said(name, make_trainer, caplog):
    make_trainer(lr_scheduler_type=name, max_steps=1).train()
    assert warnings_of(caplog) == [
        f"schedule {name!r} has no warmup because warmup_steps is 0; set e.g. warmup_steps=0.05 (5%)."
    ]


def test_a_warmup_of_beta2_needs_no_steps_and_says_nothing(make_trainer, caplog, probe):
    make_trainer(probe, lr_scheduler_type="untuned_linear", adam_beta2=0.75).train()
    assert warnings_of(caplog) == []
    assert probe.rates == same(ETA * min(1, 0.25 * (t + 1) / 2) for t in UPDATES)


class Meddler(TrainerCallback):
    """Sets the learning rate to 0.5 at update 2, and at every one from then on, in the event it is told."""

    def __init__(self, event: str) -> None:
        setattr(self, event, self._set)

    def _set(self, args, state, control, **kwargs):
        if state.global_step >= 2:
            for group in kwargs["optimizer"].param_groups:
                group["lr"] = 0.5


MEDDLED = (
    "update 2 used learning rate 0.5, but schedule 'gradual_warmup' says 0.00050005 (parameter group 0); look for a "
    "second scheduler, a callback or a DeepSpeed config that sets it."
)


@pytest.mark.parametrize("event", ["on_step_begin", "on_step_end", "on_pre_optimizer_step"])
def test_a_learning_rate_from_elsewhere_is_said_once_with_both_values(event, make_trainer, caplog, probe):
    make_trainer(Meddler(event), probe, lr_scheduler_type="gradual_warmup", warmup_steps=4).train()
    assert probe.rates == same([gradual(0), gradual(1), *[0.5] * 6])
    assert warnings_of(caplog) == [MEDDLED]


@pytest.mark.parametrize("event", ["on_step_begin", "on_step_end"])
def test_a_learning_rate_from_elsewhere_stops_the_run_when_asked_for(event, make_trainer, probe):
    options = {"on_lr_mismatch": "error"}
    trainer = make_trainer(
        Meddler(event), probe, lr_scheduler_type="gradual_warmup", warmup_steps=4, lr_scheduler_kwargs=options
    )
    with pytest.raises(RuntimeError, match=exactly(MEDDLED)):
        trainer.train()
    assert probe.rates == same([gradual(0), gradual(1)])


def test_the_check_is_made_anew_in_a_second_training(make_trainer, caplog):
    trainer = make_trainer(Meddler("on_step_begin"), lr_scheduler_type="gradual_warmup", warmup_steps=4)
    trainer.train()
    trainer.train()
    assert warnings_of(caplog) == [MEDDLED] * 2


def test_a_scheduler_given_to_the_trainer_replaces_the_name_and_that_is_said(make_trainer, tiny_llama, caplog, probe):
    model = tiny_llama()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    trainer = {"model": model, "optimizers": (optimizer, scheduler)}
    make_trainer(probe, trainer=trainer, lr_scheduler_type="gradual_warmup", warmup_steps=4).train()
    assert probe.rates == [0.25] * 8
    assert warnings_of(caplog) == [
        "lr_scheduler_type=gradual_warmup is not used, because ConstantLR replaces it; remove the scheduler from the "
        "DeepSpeed config or from the Trainer's `optimizers`."
    ]


def test_a_scheduler_of_ours_given_to_the_trainer_runs(make_trainer, tiny_llama, caplog, probe):
    model = tiny_llama()
    optimizer = torch.optim.SGD(model.parameters(), lr=ETA)
    scheduler = hfwarmup.WarmupScheduler(optimizer, "warmup_linear", num_warmup_steps=4, num_training_steps=8)
    make_trainer(probe, trainer={"model": model, "optimizers": (optimizer, scheduler)}).train()
    assert probe.rates == same(linear_fall(t) for t in UPDATES)
    assert warnings_of(caplog) == []


def test_other_schedules_are_left_alone(make_trainer, caplog, probe):
    caplog.set_level(logging.INFO, logger="hfwarmup")
    make_trainer(probe, lr_scheduler_type="linear", warmup_steps=4).train()
    assert probe.rates == same(ETA * (t / 4 if t < 4 else (8 - t) / 4) for t in UPDATES)
    assert not [record for record in caplog.records if record.name.startswith("hfwarmup")]


# Resuming

RUN = {"lr_scheduler_type": "warmup_linear", "warmup_steps": 4, "max_steps": 8, "learning_rate": ETA}
CONFIG_OR_CHECKPOINT = (
    "pass on_schedule_change=config to follow the new schedule from here on, or checkpoint to keep the old one."
)
CHANGES = {
    # what a resumed run changes, the formula of the new schedule, what the error says
    "learning_rate": (
        {"learning_rate": 2e-3},
        {"peak": 2e-3},
        f"learning_rate 0.001 -> 0.002; {CONFIG_OR_CHECKPOINT}",
    ),
    "warmup_steps": ({"warmup_steps": 6}, {"warmup_steps": 6}, f"warmup_steps 4 -> 6; {CONFIG_OR_CHECKPOINT}"),
    "max_steps": (
        {"max_steps": 12},
        {"total": 12},
        "max_steps 8 -> 12; to train longer pass on_schedule_change=config (the decay takes the new length, so "
        "the learning rate jumps) or checkpoint (the old decay ends where it would have, and its last learning rate "
        "stays).",
    ),
}


@pytest.fixture(scope="module", params=[3, 6], ids=["in the warmup", "in the decay"])
def checkpoint(request, make_trainer):
    """A checkpoint of RUN: (its update, its path)."""
    trainer = make_trainer(save_strategy="steps", save_steps=request.param, **RUN)
    trainer.train()
    return request.param, f"{trainer.args.output_dir}/checkpoint-{request.param}"


def resume(make_trainer, path, **own):
    policy = {"lr_scheduler_kwargs": {"on_schedule_change": own.pop("policy")}} if "policy" in own else {}
    make_trainer(own.pop("probe"), **{**RUN, **own, **policy}).train(resume_from_checkpoint=path)


@pytest.mark.parametrize("policy", ["error", "config", "checkpoint"])
def test_an_unchanged_schedule_resumes_under_every_policy(policy, checkpoint, make_trainer, probe, caplog):
    step, path = checkpoint
    resume(make_trainer, path, probe=probe, policy=policy)
    assert probe.rates == same(linear_fall(t) for t in range(step, 8))
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_schedule_stops_a_resumed_run_unless_told_otherwise(change, checkpoint, make_trainer, probe):
    step, path = checkpoint
    own, _, message = CHANGES[change]
    with pytest.raises(ValueError, match=exactly(f"schedule changed since the checkpoint at update {step}: {message}")):
        resume(make_trainer, path, probe=probe, **own)
    assert probe.rates == []


@pytest.mark.parametrize("change", CHANGES)
def test_config_follows_the_new_schedule_from_the_checkpoints_update_on(change, checkpoint, make_trainer, probe):
    step, path = checkpoint
    own, formula, _ = CHANGES[change]
    resume(make_trainer, path, probe=probe, policy="config", **own)
    total = own.get("max_steps", 8)
    assert probe.rates == same(linear_fall(t, **formula) for t in range(step, total))


@pytest.mark.parametrize("change", CHANGES)
def test_checkpoint_goes_on_with_the_old_schedule(change, checkpoint, make_trainer, probe):
    step, path = checkpoint
    own, _, _ = CHANGES[change]
    resume(make_trainer, path, probe=probe, policy="checkpoint", **own)
    assert probe.rates == same(linear_fall(t) for t in range(step, own.get("max_steps", 8)))


def test_a_checkpoint_of_another_scheduler_is_refused(make_trainer, probe):
    trainer = make_trainer(save_strategy="steps", save_steps=3, lr_scheduler_type="linear", warmup_steps=4)
    trainer.train()
    with pytest.raises(ValueError, match=r"^the checkpoint's scheduler is not a WarmupScheduler"):
        resume(make_trainer, f"{trainer.args.output_dir}/checkpoint-3", probe=probe)
    assert probe.rates == []
