"""What a recipe is told: the file, the flags, and the plan that follows from them."""

from __future__ import annotations

import copy
import itertools
import math
import re
import subprocess
import sys

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, SequentialSampler
from transformers import Trainer, TrainingArguments

from hfwarmup.planning.arguments import DataArguments, ModelArguments, WarmupArguments
from hfwarmup.planning.durations import Duration
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.recipe.parsing import parse_arguments
from hfwarmup.trainer.planning import plan_training, planned_arguments

TYPES = (ModelArguments, DataArguments, WarmupArguments, RecipeArguments)


def update_steps(args: TrainingArguments, samples: int) -> int:
    """The updates that the plan of `args` counts."""
    return plan_training(args, WarmupArguments(), num_samples=samples).total_steps


def exactly(message: str) -> str:
    """A pattern for `match=` that is the whole message."""
    return rf"\A{re.escape(message)}\Z"


@pytest.fixture
def parse(tmp_path):
    """Parses the flags, with the text of a YAML file before them if there is one; on the CPU everywhere."""

    def parse_all(*flags: str, yaml: str | None = None):
        argv = ["--output_dir", str(tmp_path / "run"), "--use_cpu", "true", *flags]
        if yaml is not None:
            (tmp_path / "run.yaml").write_text(yaml)
            argv = ["--config", str(tmp_path / "run.yaml"), *argv]
        model, data, warmup, training = parse_arguments(*TYPES, argv=argv)
        return {**vars(training), **vars(warmup), **vars(data), **vars(model)} | {"overrides": model.config_overrides}

    return parse_all


@pytest.fixture
def refusal(parse, tmp_path):
    """What is said, without the folder, of arguments that must be refused."""

    def refuse(*flags: str, yaml: str | None = None) -> str:
        with pytest.raises(SystemExit) as caught:
            parse(*flags, yaml=yaml)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return refuse


# The file and the flags


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(parse):
    yaml = "learning_rate: 2e-5\nwarmup: 7%\nblock_size: 128\nseed: 3\n"
    settings = parse("--learning_rate", "3e-4", "--seed=4", yaml=yaml)
    names = ["learning_rate", "seed", "warmup", "block_size", "vocab_size"]
    assert [settings[name] for name in names] == [3e-4, 4, Duration(amount=7, unit="%"), 128, 4096]


SAME = [
    # the same setting as a flag and in YAML, and what it is
    (["--learning_rate", "2e-5"], "learning_rate: 2e-5", ("learning_rate", 2e-5)),
    (["--max_steps", "2000"], "max_steps: 2_000", ("max_steps", 2000)),
    (["--reference_batch_size", "32"], "reference_batch_size: 32", ("reference_batch_size", 32)),
    (["--weight_decay", "0"], "weight_decay: 0", ("weight_decay", 0.0)),
    (["--disable_tqdm", "true"], "disable_tqdm: true", ("disable_tqdm", True)),
    (["--report_to", "none"], "report_to: none", ("report_to", [])),
    (["--warmup", "2 epochs"], "warmup: 2 epochs", ("warmup", Duration(amount=2, unit="epochs"))),
    (["--resume", "auto"], "resume: auto", ("resume", "auto")),
    (["--lr_scheduler_type", "noam"], "lr_scheduler_type: noam", ("lr_scheduler_type", "noam")),
    (
        ["--lr_scheduler_type", "warmup_cosine", "--lr_scheduler_kwargs", '{"final_ratio": 0.2}'],
        "lr_scheduler_type: warmup_cosine\nlr_scheduler_kwargs:\n  final_ratio: 0.2",
        ("lr_scheduler_kwargs", {"final_ratio": 0.2}),
    ),
    (
        ["--config_overrides", '{"hidden_size": 64, "hidden_act": "relu"}'],
        "config_overrides:\n  hidden_size: 64\n  hidden_act: relu",
        ("overrides", {"hidden_size": 64, "hidden_act": "relu"}),
    ),
]


@pytest.mark.parametrize(("flags", "yaml", "expected"), SAME)
def test_a_setting_means_the_same_in_the_file_and_as_a_flag(flags, yaml, expected, parse):
    name, value = expected
    for settings in (parse(*flags), parse(yaml=yaml + "\n")):
        assert settings[name] == value
        assert isinstance(settings[name], type(value))


UNTRUE = [
    # a value that no setting can have: it is refused in the file and as a flag, and the line names the setting
    ("learning_rate", "fast"),
    ("max_steps", "many"),
    ("max_steps", "2.5"),
    ("reference_batch_size", "eight"),
    ("lr_scaling", "quadratic"),
    ("warmup_scaling", "cubic"),
    ("on_schedule_change", "maybe"),
    ("precision", "fp8"),
    ("resume", "maybe"),
    ("torch_compile", "maybe"),
    ("vocab_size", "256"),
    ("block_size", "1"),
    ("validation_fraction", "1.0"),
    ("tokenize_workers", "-1"),
    ("config_overrides", "'{hidden_size: 64}'"),
    ("config_overrides", "3"),
]


@pytest.mark.parametrize(("name", "value"), UNTRUE)
def test_an_impossible_value_is_refused_as_a_flag(name, value, refusal):
    said = refusal(f"--{name}", value.strip("'"))
    assert re.fullmatch(rf"error: [^\n]*{name}[^\n]*", said)


@pytest.mark.parametrize(("name", "value"), UNTRUE)
def test_an_impossible_value_is_refused_in_the_file(name, value, refusal):
    said = refusal(yaml=f"{name}: {value}\n")
    assert re.fullmatch(rf"error: [^\n]*{name}[^\n]*", said)


NO_RATIO = "unknown setting 'warmup_ratio'; write warmup: \"10%\" (transformers 5 has no warmup_ratio)."


def test_every_unknown_key_of_the_file_is_reported_with_its_line(refusal):
    yaml = "learnign_rate: 2e-5\nmax_steps: 5\nwarmup_ratio: 0.1\nzzz: 3\n"
    assert refusal(yaml=yaml).splitlines() == [
        "error: run.yaml:1: unknown setting 'learnign_rate'; did you mean 'learning_rate'?",
        f"error: run.yaml:3: {NO_RATIO}",
        "error: run.yaml:4: unknown setting 'zzz'. Remove it, or see --help.",
    ]


def test_every_unknown_flag_is_reported(refusal):
    assert refusal("--learnign_rate", "3", "--warmup-ratio", "0.1", "--zzz=3").splitlines() == [
        "error: unknown setting 'learnign_rate'; did you mean 'learning_rate'?",
        f"error: {NO_RATIO}",
        "error: unknown setting 'zzz'. Remove it, or see --help.",
    ]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--learning", "3"], "unknown setting 'learning'; did you mean 'learning_rate'?"),  # not an abbreviation
        (["--per_device_train_batch", "3"], "unknown setting 'per_device_train_batch'; did you mean "
         "'per_device_train_batch_size'?"),
        (["stray"], "unexpected argument 'stray'; write --name value."),
        (["--learning_rate"], "learning_rate has no value; write --learning_rate VALUE."),
        (["--config"], "config has no value; write --config FILE."),
        (["--precision", "fp32", "--bf16", "true"], "bf16=true and precision=fp32 contradict; keep precision."),
        (["--precision", "bf16", "--fp16", "true"], "fp16=true and precision=bf16 contradict; keep precision."),
        (["--torch_compile", "maybe"], "torch_compile='maybe': give true or false or one of auto."),
        (["--vocab_size", "256"], "vocab_size=256: give 257 or more: 256 bytes and <|endoftext|>."),
        (["--lr_scheduler_kwargs", "{x"], "lr_scheduler_kwargs='{x' is not JSON (Expecting property name enclosed in "
         "double quotes); quote its names."),
        (["--config_overrides", "[1]"], "config_overrides='[1]': give a map of settings."),
        (["--model", "m", "--config_overrides", '{"a": 1}'], "config_overrides are for a new model, and model='m' "
         "brings its own; drop one."),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(flags, said, refusal):
    assert refusal(*flags) == f"error: {said}"


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(SystemExit) as caught:
        parse_arguments(*TYPES, argv=["--config", str(tmp_path / "nope.yaml")])
    assert caught.value.code == (
        f"error: {tmp_path}/nope.yaml: this config file does not exist; configs/ has those of the recipes."
    )


def test_both_half_precisions_at_once_are_refused(refusal):
    said = refusal("--bf16", "true", "--fp16", "true")
    assert re.fullmatch(r"error: [^\n]*bf16[^\n]*fp16[^\n]*|error: [^\n]*fp16[^\n]*bf16[^\n]*", said)


def test_help_names_every_setting(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_arguments(*TYPES, argv=["--help"])
    assert caught.value.code in (0, None)
    shown = capsys.readouterr().out
    assert all(f"--{name}" in shown for name in ("config", "warmup", "reference_batch_size", "learning_rate", "model"))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        # flags -> precision, bf16, fp16, mixed_precision
        (["--precision", "fp32"], ("fp32", False, False, "no")),
        (["--precision", "bf16"], ("bf16", True, False, "bf16")),
        (["--precision", "bf16", "--bf16", "true"], ("bf16", True, False, "bf16")),
        (["--bf16", "true"], ("bf16", True, False, "bf16")),
        (["--fp16", "true"], ("fp16", False, True, "fp16")),
    ],
)
def test_a_precision_that_is_asked_for_is_taken(flags, expected, parse):
    settings = parse(*flags)
    assert tuple(settings[name] for name in ("precision", "bf16", "fp16", "mixed_precision")) == expected
    assert settings["precision_reason"] == f"precision {expected[0]}: as asked for"


def test_fp32_stands_against_what_the_launcher_was_told(parse, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    settings = parse("--precision", "fp32")
    assert (settings["bf16"], settings["fp16"], settings["mixed_precision"]) == (False, False, "no")
    assert parse()["precision_reason"] == "precision bf16: accelerate was launched with mixed_precision=bf16"


@pytest.mark.parametrize(
    ("given", "compiles", "auto"),
    [("auto", False, True), ("true", True, False), ("True", True, False), ("false", False, False)],
)
def test_torch_compile_is_auto_true_or_false(given, compiles, auto, parse):
    for settings in (parse("--torch_compile", given), parse(yaml=f"torch_compile: {given}\n")):
        assert (settings["torch_compile"], settings["auto_compile"]) == (compiles, auto)


# The plan


@pytest.fixture
def training(tmp_path, monkeypatch):
    """Makes the arguments of a run over `num_processes`."""

    def make(num_processes: int = 1, **own) -> TrainingArguments:
        monkeypatch.setattr(TrainingArguments, "world_size", property(lambda _: num_processes))
        settings = {"learning_rate": 1e-3, "lr_scheduler_type": "gradual_warmup", "use_cpu": True, **own}
        return TrainingArguments(output_dir=str(tmp_path), **settings)

    return make


@pytest.mark.parametrize(
    ("per_device", "processes", "accumulation", "reference", "peak_lr", "warmup_steps"),
    [
        # the recipe: learning rate 1e-3 and 10 updates of warmup at the reference batch; the linear rules
        (8, 1, 1, None, 1e-3, 10),  # no reference: nothing is scaled
        (8, 4, 2, None, 1e-3, 10),
        (8, 1, 1, 8, 1e-3, 10),  # k = 1
        (8, 2, 1, 8, 2e-3, 20),  # each of the three factors doubles the batch
        (16, 1, 1, 8, 2e-3, 20),
        (8, 1, 2, 8, 2e-3, 20),
        (8, 4, 2, 16, 4e-3, 40),  # k = 64 / 16
        (4, 1, 1, 8, 5e-4, 5),  # down as well
        (2, 1, 1, 8, 2.5e-4, 3),  # 2.5 steps: halves go up
    ],
)
def test_the_batch_scales_the_peak_and_the_warmup(
    per_device, processes, accumulation, reference, peak_lr, warmup_steps, training
):
    args = training(
        processes, per_device_train_batch_size=per_device, gradient_accumulation_steps=accumulation, max_steps=1000
    )
    warmup = WarmupArguments(warmup="10", reference_batch_size=reference)
    plan = plan_training(args, warmup, num_samples=64)
    assert plan.global_batch_size == per_device * processes * accumulation
    assert (plan.peak_lr, plan.warmup_steps) == (pytest.approx(peak_lr), warmup_steps)
    planned = planned_arguments(args, warmup, plan)  # what the Trainer will read
    assert (planned.learning_rate, planned.warmup_steps) == (plan.peak_lr, plan.warmup_steps)
    assert planned.get_warmup_steps(1000) == warmup_steps
    assert (args.learning_rate, args.warmup_steps) == (1e-3, 0)  # what was given


@pytest.mark.parametrize(
    ("lr_scaling", "warmup_scaling", "peak_lr", "warmup_steps"),
    [
        # k = 4; learning rate 1e-3, warmup 20 at the reference batch
        ("linear", "linear", 4e-3, 80),
        ("sqrt", "sqrt", 2e-3, 40),
        ("none", "constant_steps", 1e-3, 20),
        ("none", "constant_samples", 1e-3, 5),
    ],
)
def test_the_rules_are_those_of_the_arguments(lr_scaling, warmup_scaling, peak_lr, warmup_steps, training):
    args = training(4, per_device_train_batch_size=8, max_steps=1000)
    warmup = WarmupArguments(warmup="20", reference_batch_size=8, lr_scaling=lr_scaling, warmup_scaling=warmup_scaling)
    plan = plan_training(args, warmup, num_samples=64)
    assert (plan.peak_lr, plan.warmup_steps) == (pytest.approx(peak_lr), warmup_steps)


@pytest.mark.parametrize(
    ("length", "batch", "run", "warmup_steps", "total_steps"),
    [
        # 800 samples, reference batch 8: an epoch of the recipe has 100 updates
        ("10%", 8, {"num_train_epochs": 1}, 10, 100),
        ("10%", 16, {"num_train_epochs": 1}, 20, 50),  # 10% of the recipe's 100 updates, doubled
        ("10%", 16, {"max_steps": 100}, 20, 100),  # a run of max_steps is as long at every batch
        ("1 epoch", 8, {"num_train_epochs": 4}, 100, 400),
        ("1 epoch", 16, {"num_train_epochs": 8}, 200, 400),  # the recipe's 100 updates, doubled: two epochs of this run
        ("160 samples", 16, {"num_train_epochs": 4}, 40, 200),
        ("3200 tokens", 16, {"num_train_epochs": 4}, 80, 200),  # 10 tokens a sample
        ("90%", 8, {"num_train_epochs": 1}, 50, 100),  # the cap
    ],
)
def test_a_duration_is_that_of_the_recipe_at_its_reference_batch(
    length, batch, run, warmup_steps, total_steps, training
):
    args = training(per_device_train_batch_size=batch, **run)
    warmup = WarmupArguments(warmup=length, reference_batch_size=8)
    plan = plan_training(args, warmup, num_samples=800, tokens_per_sample=10)
    assert (plan.warmup_steps, plan.total_steps) == (warmup_steps, total_steps)


@pytest.mark.parametrize("batch", [8, 16])
@pytest.mark.parametrize("run", [{"num_train_epochs": 1}, {"max_steps": 100}])
def test_transformers_own_share_says_the_same_as_a_percentage(run, batch, training):
    """`warmup_steps: 0.1` is transformers' way to write 10%."""
    own = {"per_device_train_batch_size": batch, **run}
    as_text = plan_training(training(**own), WarmupArguments(warmup="10%", reference_batch_size=8), num_samples=800)
    as_share = plan_training(
        training(warmup_steps=0.1, **own), WarmupArguments(reference_batch_size=8), num_samples=800
    )
    assert as_share.warmup_steps == as_text.warmup_steps


def test_a_warmup_given_twice_is_refused(training):
    args = training(max_steps=100, warmup_steps=5)
    with pytest.raises(ValueError, match=exactly("warmup='10%' and warmup_steps=5 are both given; keep warmup.")):
        plan_training(args, WarmupArguments(warmup="10%"), num_samples=64)
    assert args.warmup_steps == 5


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("untuned_linear", None),
        ("untuned_exponential", None),
        ("radam_warmup", None),
        ("gi_warmup", None),
        ("hfwarmup", {"warmup_shape": "gi"}),
    ],
)
def test_a_warmup_that_follows_from_beta2_takes_no_length(name, options, training):
    args = training(max_steps=100, lr_scheduler_type=name, lr_scheduler_kwargs=options, adam_beta2=0.95)
    message = f"warmup='10%': schedule {name!r} takes its length from adam_beta2; leave warmup empty."
    with pytest.raises(ValueError, match=exactly(message)):
        plan_training(args, WarmupArguments(warmup="10%"), num_samples=64)
    plan = plan_training(args, WarmupArguments(), num_samples=64)
    assert plan.warmup_steps == 40  # 2 / (1 - 0.95)
    planned = planned_arguments(args, WarmupArguments(), plan)
    assert planned.get_warmup_steps(100) == 0  # the Trainer leaves the length to the schedule


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        # schedule, its options as given, as the Trainer gets them
        ("gradual_warmup", None, {"on_schedule_change": "config"}),
        ("gradual_warmup", {"initial_lr": 0.0}, {"on_schedule_change": "config", "initial_lr": 0.0}),
        ("gradual_warmup", {"on_schedule_change": "error"}, {"on_schedule_change": "error"}),
        ("cosine_with_min_lr", {"min_lr": 1e-5}, {"min_lr": 1e-5}),  # transformers' own would refuse it
        ("linear", None, None),
    ],
)
def test_the_resume_policy_reaches_the_schedules_that_know_it(name, given, expected, training):
    args = training(max_steps=100, lr_scheduler_type=name, lr_scheduler_kwargs=given)
    warmup = WarmupArguments(warmup="10", on_schedule_change="config")
    plan = plan_training(args, warmup, num_samples=64)
    assert planned_arguments(args, warmup, plan).lr_scheduler_kwargs == expected
    assert args.lr_scheduler_kwargs == given


def test_options_of_the_check_do_not_hinder_the_plan(training):
    args = training(max_steps=100, lr_scheduler_kwargs={"on_lr_mismatch": "error", "on_schedule_change": "config"})
    assert plan_training(args, WarmupArguments(warmup="10"), num_samples=64).warmup_steps == 10


@pytest.mark.parametrize("length", [{"warmup": "10"}, {"target_batch_size": 16}], ids=["warmup", "warmup_steps"])
def test_planning_the_same_arguments_again_is_the_same_plan(length, training):
    steps = 0 if "warmup" in length else 10
    args = training(max_steps=100, lr_scheduler_type="gradual_warmup", warmup_steps=steps)
    warmups = [
        WarmupArguments(reference_batch_size=4, on_schedule_change=policy, **length) for policy in ("error", "config")
    ]
    plans = [plan_training(args, warmup, num_samples=64) for warmup in warmups]
    scale = 4 if "target_batch_size" in length else 2
    assert plans[0] == plans[1]
    planned = planned_arguments(args, warmups[1], plans[1])
    assert (planned.learning_rate, planned.warmup_steps) == (pytest.approx(scale * 1e-3), scale * 10)
    assert planned.lr_scheduler_kwargs == {"on_schedule_change": "config"}


def test_what_is_set_anew_before_planning_again_counts_as_given(training):
    args, warmup = training(max_steps=100, warmup_steps=10), WarmupArguments(reference_batch_size=4)
    assert plan_training(args, warmup, num_samples=64).peak_lr == pytest.approx(2e-3)
    args.learning_rate = 3e-4
    args.lr_scheduler_kwargs = {"final_ratio": 0.5}
    args.lr_scheduler_type = "warmup_cosine"
    plan = plan_training(args, warmup, num_samples=64)
    planned = planned_arguments(args, warmup, plan)
    assert plan.peak_lr == pytest.approx(6e-4)
    assert planned.warmup_steps == 20
    assert planned.lr_scheduler_kwargs["final_ratio"] == 0.5


@pytest.mark.parametrize(("processes", "accumulation"), [(1, 8), (2, 4), (8, 1)])
def test_a_global_batch_is_kept_on_any_number_of_processes(processes, accumulation, training):
    args = training(processes, per_device_train_batch_size=8, gradient_accumulation_steps=5, max_steps=100)
    warmup = WarmupArguments(warmup="10", target_batch_size=64, reference_batch_size=32)
    plan = plan_training(args, warmup, num_samples=640)
    assert planned_arguments(args, warmup, plan).gradient_accumulation_steps == accumulation
    assert args.gradient_accumulation_steps == 5
    assert (plan.global_batch_size, plan.peak_lr, plan.warmup_steps) == (64, pytest.approx(2e-3), 20)


@pytest.mark.parametrize(("processes", "global_batch"), [(3, 64), (16, 64), (1, 4)])
def test_a_global_batch_that_does_not_divide_is_refused(processes, global_batch, training):
    args = training(processes, per_device_train_batch_size=8, max_steps=100)
    message = (
        f"target_batch_size={global_batch} is no multiple of 8 per device x {processes} processes; "
        "change per_device_train_batch_size or target_batch_size."
    )
    with pytest.raises(ValueError, match=exactly(message)):
        plan_training(args, WarmupArguments(target_batch_size=global_batch), num_samples=640)


# The number of updates


def planned_updates(args: TrainingArguments, num_samples: int) -> int:
    return plan_training(args, WarmupArguments(), num_samples=num_samples).total_steps


SAMPLES, BATCHES, ACCUMULATIONS, EPOCHS = (1, 7, 8, 9, 40), (1, 3, 8), (1, 2, 3), (0.4, 1, 2.5)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch", BATCHES)
def test_updates_are_counted_as_the_trainer_counts_them(batch, drop_last, tiny_llama, blocks, tmp_path):
    model = tiny_llama()
    for samples, accumulation, epochs in itertools.product(SAMPLES, ACCUMULATIONS, EPOCHS):
        if drop_last and samples < batch:
            continue  # nothing to train on, which the Trainer refuses
        args = TrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            num_train_epochs=epochs,
            dataloader_drop_last=drop_last,
            use_cpu=True,
        )
        trainer = Trainer(model, args, train_dataset=blocks(samples))
        *_, expected = trainer.set_initial_training_values(args, trainer.get_train_dataloader())
        assert planned_updates(args, samples) == expected, (samples, accumulation, epochs)


def test_updates_that_are_counted_are_made(make_trainer, probe):
    trainer = make_trainer(
        probe,
        max_steps=-1,
        num_train_epochs=2.5,
        gradient_accumulation_steps=3,
        lr_scheduler_type="warmup_linear",
        warmup_steps=2,
    )
    expected = planned_updates(trainer.args, 8)  # 4 batches an epoch, 2 updates, 5 in all
    trainer.train()
    assert len(probe.rates) == expected == 5


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("num_processes", [2, 3, 8])
def test_every_process_has_the_batches_that_accelerate_gives_it(num_processes, drop_last, training):
    for samples, batch, accumulation in itertools.product((1, 16, 17, 40, 100), BATCHES, ACCUMULATIONS):
        if drop_last and samples < batch * num_processes:
            continue  # nothing is left to train on, which the plan refuses
        args = training(
            num_processes,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            num_train_epochs=2,
            dataloader_drop_last=drop_last,
        )
        sampler = BatchSampler(SequentialSampler(range(samples)), batch, drop_last)
        counts = {len(list(BatchSamplerShard(sampler, num_processes, rank))) for rank in range(num_processes)}
        assert len(counts) == 1
        updates_per_epoch = max(1, math.ceil(counts.pop() / accumulation))
        assert planned_updates(args, samples) == 2 * updates_per_epoch, (samples, batch, accumulation)


def test_max_steps_is_the_number_of_updates(training):
    assert planned_updates(training(max_steps=7, num_train_epochs=100), 1_000_000) == 7


OPENED = """
import sys
sys.modules["hfwarmup"] = None  # as where it is not installed
import torch
args = torch.load("training_args.bin", weights_only=False)
print(type(args).__name__, args.lr_scheduler_type, args.learning_rate, args.warmup_steps)
"""


def test_what_a_checkpoint_holds_opens_without_this_package(tmp_path):
    *_, args = parse_arguments(
        *TYPES, argv=["--output_dir", "run", "--use_cpu", "true", "--max_steps", "100", "--lr_scheduler_type", "noam"]
    )
    warmup = WarmupArguments(warmup="10", reference_batch_size=4)
    planned = planned_arguments(args, warmup, plan_training(args, warmup, num_samples=64))
    torch.save(planned, tmp_path / "training_args.bin")
    opened = subprocess.run([sys.executable, "-c", OPENED], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert opened.stdout == "TrainingArguments noam 0.002 20\n"


def test_a_copy_keeps_its_class_and_its_settings():
    *_, args = parse_arguments(*TYPES, argv=["--output_dir", "run", "--use_cpu", "true"])
    for made in (copy.copy(args), copy.deepcopy(args)):
        assert type(made) is RecipeArguments
        assert made.settings == args.settings
