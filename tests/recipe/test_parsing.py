"""Everything that is wrong with a recipe's arguments is said at once; what is right is known with its origin."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, GreedyLR
from transformers.trainer_utils import SchedulerType

from hfwarmup.errors import UserError
from hfwarmup.planning.aliases import ALIASES
from hfwarmup.planning.arguments import DataArguments, ModelArguments, WarmupArguments
from hfwarmup.planning.recipe_files import find_recipe, import_script, recipe_names
from hfwarmup.planning.settings import PlanSettings
from hfwarmup.planning.transformers_schedules import TRANSFORMERS_SCHEDULES
from hfwarmup.planning.values import defaults_of
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.recipe.parsing import parse_arguments, read_arguments

TYPES = (ModelArguments, DataArguments, WarmupArguments, RecipeArguments)


@pytest.fixture
def findings(tmp_path, monkeypatch):
    """What is found in the text of a config and in flags."""
    monkeypatch.chdir(tmp_path)

    def find(text: str, *flags: str) -> list[str]:
        Path("run.yaml").write_text(text)
        try:
            read_arguments(TYPES, ["--config", "run.yaml", "--use_cpu", "true", *flags])
        except UserError as error:
            return list(error.findings)
        return []

    return find


FIVE_MISTAKES = """\
# five mistakes, one of each kind
output_dir: runs/five
learnign_rate: 2e-3
warmup_ratio: 0.05
max_steps: many
seed: 1
warmup: 100
warmup_steps: 50
seed: 2
"""


def test_five_mistakes_are_five_findings_each_with_line_and_remedy(findings):
    assert findings(FIVE_MISTAKES) == [
        "run.yaml:3: unknown setting 'learnign_rate'; did you mean 'learning_rate'?",
        "run.yaml:4: unknown setting 'warmup_ratio'; write warmup: \"5%\" (transformers 5 has no warmup_ratio).",
        "run.yaml:5: max_steps='many': give a whole number.",
        "run.yaml:9: 'seed' is also in line 6; keep one of the two.",
        "run.yaml:7: warmup='100 steps' and warmup_steps=50 are both given; keep warmup.",
    ]


ONE_FINDING = [
    # config, flags, what is found
    (
        "lr_scheduler_type: warmup_cosin\n",
        [],
        r"run.yaml:1: lr_scheduler_type='warmup_cosin'; did you mean 'warmup_cosine'? Choose one of linear, ",
    ),
    (
        "model: gpt2\nconfig_overrides: {a: 1}\n",
        [],
        "run.yaml:1: config_overrides are for a new model, and model='gpt2'",
    ),
    ("seed: 1\nfp16: true\n", ["--precision", "fp32"], "run.yaml:2: fp16=true and precision=fp32 contradict; keep"),
    ("warmup: 5 moons\n", [], "run.yaml:1: duration '5 moons' has the unknown unit 'moons'"),
    ("warmup: 5 moons\n", ["--warmup", "5 suns"], "duration '5 suns' has the unknown unit 'suns'"),  # the flag's
    (
        "lr_scheduler_type: warmup_cosine\nlr_scheduler_kwargs: {final_ration: 0.1}\n",
        [],
        "run.yaml:2: 'warmup_cosine' has no option 'final_ration'; did you mean 'final_ratio'?",
    ),
    ("", ["--seed", "1", "2"], "unexpected argument '2'; write --name value."),
    ("", ["--lr", "3e-4"], "unknown setting 'lr'; write learning_rate: 0.0003."),
    (
        "mlm_probability: 0.3\n",
        [],
        "run.yaml:1: unknown setting 'mlm_probability', a setting of pretrain_mlm; run",
    ),
    ("lora_rank: 4\n", [], "run.yaml:1: unknown setting 'lora_rank', a setting of finetune_sft; run that recipe, or"),
    ("resume: 3\n", [], "run.yaml:1: resume=3: give one of never, auto, must."),
]


@pytest.mark.parametrize(("text", "flags", "found"), ONE_FINDING)
def test_a_mistake_is_one_finding(text, flags, found, findings):
    (finding,) = findings(text, *flags)
    assert finding.startswith(found)


def test_mistakes_of_the_file_and_of_the_flags_come_together(findings):
    assert findings("max_step: 5\n", "--seed", "x", "--block_size", "1") == [
        "run.yaml:1: unknown setting 'max_step'; did you mean 'max_steps'?",
        "seed='x': give a whole number.",
        "block_size=1: give 2 tokens or more: the first one is not predicted.",
    ]


def test_a_misspelt_name_counts_as_the_right_one(findings):
    """Without that, load_best_model_at_end would be called wrong as well."""
    text = "eval_strateg: steps\nsave_strategy: steps\nload_best_model_at_end: true\n"
    assert findings(text) == ["run.yaml:1: unknown setting 'eval_strateg'; did you mean 'eval_strategy'?"]


def test_nothing_is_found_where_nothing_is_wrong(findings):
    assert findings("learning_rate: 2e-3\nwarmup: 10\nlabel_names: []\nadam_beta2: 0.95\ndata_seed: null\n") == []


@pytest.mark.parametrize(("rank", "code"), [("0", "error: unknown setting 'zzz'. Remove it, or see --help."), ("1", 1)])
def test_one_process_of_a_machine_speaks(rank, code, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", rank)
    with pytest.raises(SystemExit) as caught:
        parse_arguments(*TYPES, argv=["--zzz", "1"])
    assert caught.value.code == code


def test_findings_of_several_processes_need_no_process_group(monkeypatch):
    for name, value in {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"^unknown setting 'zzz'[^\n]*\nwarmup='3 steps' and warmup_steps=4[^\n]*$"):
        read_arguments(TYPES, ["--zzz", "1", "--warmup", "3", "--warmup_steps", "4"])
    assert not torch.distributed.is_initialized()


def test_the_defaults_of_a_plan_are_those_of_the_recipes_arguments():
    """Where they are transformers' own, they are those of the installed version."""
    own, recipes = defaults_of(PlanSettings), defaults_of(*TYPES)
    shared = (own.keys() & recipes.keys()) - {"model", "lr_scheduler_kwargs"}
    assert len(shared) == 18
    assert {name: own[name] for name in shared} == {
        name: getattr(recipes[name], "value", recipes[name]) for name in shared
    }


@pytest.mark.parametrize("name", TRANSFORMERS_SCHEDULES)
def test_the_options_of_transformers_schedules_are_those_of_its_functions(name):
    kind = TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(name)]
    takes = {"reduce_lr_on_plateau": ReduceLROnPlateau, "greedy": GreedyLR}.get(name, kind)
    lengths = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch", "self"}
    options = set(inspect.signature(takes).parameters) - lengths
    # get_scheduler gives the options to no constant schedule.
    assert set(TRANSFORMERS_SCHEDULES[name]) == (set() if name == "constant" else options)


def test_every_schedule_of_transformers_is_known_to_a_plan():
    own = "transformers.optimization"
    theirs = {kind.value for kind, made in TYPE_TO_SCHEDULER_FUNCTION.items() if made.__module__ == own}
    assert set(TRANSFORMERS_SCHEDULES) == theirs


def test_each_value_has_its_origin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("seed: 3\n\nwarmup: 7%\nconfig_overrides: {hidden_size: 64}\n")
    *_, args = parse_arguments(*TYPES, argv=["--config", "a.yaml", "--seed=4", "--bf16", "false", "--use_cpu", "true"])
    found = {setting.name: (setting.value, setting.origin) for setting in args.settings}
    assert found["seed"] == (4, "flag, over a.yaml:1")
    assert found["warmup"] == ("7%", "a.yaml:3")
    assert found["config_overrides"] == ({"hidden_size": 64}, "a.yaml:4")
    assert found["bf16"] == (False, "flag")
    assert found["precision"] == ("auto", "default")
    assert found["lr_scheduler_type"] == ("linear", "default")


def test_a_name_that_moved_is_none_of_the_recipes_own():
    own = {name for recipe in recipe_names() for kind in import_script(find_recipe(recipe)).ARGUMENTS
           for name in kind.__dataclass_fields__}  # fmt: skip
    assert own & ALIASES.keys() == set()
    heads = {new.partition(":")[0] for new in ALIASES.values()}
    assert heads <= own


UNTIL_NOW_ACCEPTED = [
    # config, what is found: each of these ended in a traceback later, or was ignored
    ("learning_rate: null\n", "learning_rate=null: give a number."),
    ("max_steps: null\n", "max_steps=null: give a whole number."),
    ('max_steps: "40"\n', "max_steps='40': give a whole number."),
    ("dataset: {path: x}\n", "dataset={'path': 'x'}: give text (in quotes)."),
    ("fsdp: [full_shard, auto_wrap]\n", "fsdp=['full_shard', 'auto_wrap']: give text (in quotes)."),
    ("lr_scheduler_type: cosine\nlr_scheduler_kwargs: {final_ratio: 0.1}\n",
     "'cosine' of transformers has no option 'final_ratio'. It takes num_cycles; warmup_cosine of hfwarmup takes"),
    ("lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr_ratio: 0.1}\n",
     "'cosine_with_min_lr' of transformers has no option 'min_lr_ratio'; did you mean 'min_lr_rate'? It takes "
     "num_cycles, min_lr, min_lr_rate."),
    ("lr_scheduler_type: constant\nlr_scheduler_kwargs: {num_cycles: 2}\n",
     "'constant' of transformers has no option 'num_cycles'. It takes none; warmup_cosine of hfwarmup takes more."),
    ("resume_from_checkpoint: runs/a\n",
     "resume_from_checkpoint='runs/a': nothing reads it; write resume: auto or must, with the run's output_dir."),
    ("do_train: true\n", "do_train=True: a recipe always trains; remove it."),
    ("deepspeed: x.json\n", "deepspeed='x.json': deepspeed is not installed; pip install deepspeed."),
    ("report_to: [tensorboard, wandb]\n", "report_to='wandb': wandb is not installed; pip install wandb."),
    ("report_to: tensorbord\n", "report_to='tensorbord'; did you mean 'tensorboard'? Choose one of "),
    ("optim_args: fused\n", "optim_args='fused': cannot be used (ValueError: "),
    ("torch_dtype: bfloat16\n", "unknown setting 'torch_dtype'; write precision: bf16."),
]  # fmt: skip


@pytest.mark.parametrize(("text", "found"), UNTIL_NOW_ACCEPTED)
def test_what_cannot_run_is_one_finding_with_its_line(text, found, findings):
    (finding,) = findings(text)
    place, _, said = finding.partition(": ")
    assert place in ("run.yaml:1", "run.yaml:2")
    assert said.startswith(found)


@pytest.mark.parametrize(
    "text",
    ["report_to: [tensorboard]\n", "lr_scheduler_type: noam\nwarmup: 5\nlr_scheduler_kwargs: '{\"d_model\": 8}'\n"],
)
def test_lists_and_maps_keep_their_kind(text, findings):
    assert findings(text) == []
