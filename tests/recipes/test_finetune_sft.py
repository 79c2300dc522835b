"""Fine-tuning on docstring-to-code pairs: which pairs, what the loss sees, what is trained, and what is left behind."""

from __future__ import annotations

import ast
import functools
import json
import math
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import datasets
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

import hfwarmup
from hfwarmup.planning.arguments import DataArguments, ModelArguments, WarmupArguments
from hfwarmup.planning.recipe_files import import_script
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.recipe.corpus import load_corpus
from hfwarmup.recipe.model import build_model
from hfwarmup.recipe.parsing import parse_arguments
from hfwarmup.run_folder.files import read_learning_rates
from hfwarmup.trainer.non_finite import NonFiniteGuard
from hfwarmup.trainer.recorder import RunRecorder

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "finetune_sft"
ASYNCIO = Path(sysconfig.get_path("stdlib"), "asyncio")  # about thirty files with docstrings
RECIPE = vars(import_script(ROOT / "recipes" / "finetune_sft.py"))
SFTArguments, find_pairs = RECIPE["SFTArguments"], RECIPE["find_pairs"]
BLOCK_SIZE = 96

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks so


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    hfwarmup.register()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True)
        yield


# --- the pairs

PAIRS = {
    "a method is dedented": (
        'class A:\n    def one(self):\n        """One."""\n        return 1\n',
        [('def one(self):\n    """One."""', "\n    return 1")],
    ),
    "comments and blank lines belong to the body, decorators to nothing": (
        '@cache\nasync def one(x,\n              y):\n    "One."\n\n    # why\n    return 1  # so\n\n\nb = 2\n',
        [('async def one(x,\n              y):\n    "One."', "\n\n    # why\n    return 1  # so")],
    ),
    "an inner function is a pair of its own": (
        'def a():\n    "A."\n    def b():\n        "B."\n        return 2\n    return b\n',
        [
            ('def a():\n    "A."', '\n    def b():\n        "B."\n        return 2\n    return b'),
            ('def b():\n    "B."', "\n    return 2"),
        ],
    ),
    "text at the margin stays": (
        'class A:\n    def a():\n        "Ä."\n        return """\nx"""\n',
        [('def a():\n    "Ä."', '\n    return """\nx"""')],
    ),
    "no docstring": ("def one():\n    return 1\n", []),
    "nothing but a docstring": ('def one():\n    "One."\n', []),
    "code beside the docstring": ('def one(): "One."; return 1\n', []),
    "a docstring of a class": ('class A:\n    "A."\n    b = 1\n', []),
}


@pytest.mark.parametrize(("source", "expected"), PAIRS.values(), ids=PAIRS)
def test_the_pairs_of_a_source(source, expected):
    assert list(find_pairs(source)) == expected


def test_a_source_of_another_language_has_no_pairs():
    good = 'def one():\n    "One."\n    return 1\n'
    found = [list(find_pairs(source)) for source in ("print 'Python 2'", "a\0b", good)]
    assert found == [[], [], [('def one():\n    "One."', "\n    return 1")]]


@functools.cache
def prepared():
    args = sft_arguments(BLOCK_SIZE)
    data = DataArguments(dataset=str(ASYNCIO), vocab_size=512, block_size=BLOCK_SIZE, validation_fraction=0.2)
    return data, *RECIPE["prepare_pairs"](data, args)


def sft_arguments(block_size, **settings):
    args = SFTArguments(
        **{"output_dir": "unused", "use_cpu": True, "precision": "fp32", "disable_tqdm": True, **settings}
    )
    args.max_length = block_size
    return args


def test_a_pair_is_a_function_that_runs_through_python_and_is_on_the_side_of_its_file():
    data, tokenizer, pairs = prepared()
    corpus = load_corpus(data)
    files = {split: [set(find_pairs(text)) for text in corpus[split]["text"]] for split in corpus}
    texts = {split: [(pair["prompt"], pair["completion"]) for pair in pairs[split]] for split in pairs}
    for split, found in texts.items():
        assert set(found) <= set().union(*files[split])
        for prompt, completion in found:
            function = ast.parse(prompt + completion).body[0]
            assert ast.get_docstring(function)
            assert ast.get_docstring(ast.parse(prompt).body[0]) == ast.get_docstring(function)
            assert len(tokenizer(prompt + completion)["input_ids"]) < BLOCK_SIZE
    assert not set(texts["train"]) & set(texts["validation"])
    assert len(texts["train"]) > 50


# --- what is trained


@pytest.fixture(scope="module")
def make_trainer(tmp_path_factory):
    """Makes an SFTTrainer of a new two-layer Llama, which is the same each time."""

    def make(callbacks=(), lora=None, **settings):
        _, tokenizer, pairs = prepared()
        overrides = json.dumps(
            {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        )
        set_seed(0)
        new = ModelArguments(model_type="llama", config_overrides=overrides)
        model = build_model(AutoModelForCausalLM, new, tokenizer, BLOCK_SIZE)
        args = sft_arguments(
            BLOCK_SIZE,
            **{
                "output_dir": str(tmp_path_factory.mktemp("run")),
                "per_device_train_batch_size": 4,
                "max_steps": 3,
                "learning_rate": 1e-2,
                "lr_scheduler_type": "warmup_cosine",
                "warmup_steps": 1,
                "logging_steps": 1,
                "save_strategy": "no",
                **settings,
            },
        )
        return SFTTrainer(
            model=model,
            args=args,
            train_dataset=pairs["train"],
            eval_dataset=pairs["validation"].select(range(8)),
            processing_class=tokenizer,
            peft_config=LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear", **(lora or {})),
            callbacks=[NonFiniteGuard(), RunRecorder(), *callbacks],
        )

    return make


def test_the_loss_sees_the_completion_and_its_end_and_nothing_else(make_trainer):
    trainer = make_trainer()
    _, tokenizer, pairs = prepared()
    assert len(trainer.train_dataset) == len(pairs["train"])  # none is dropped: the plan's number of samples holds
    for pair, row in zip(pairs["train"], trainer.train_dataset, strict=True):
        learned = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
        assert all(label in (token, -100) for token, label in zip(row["input_ids"], row["labels"], strict=True))
        assert tokenizer.decode(learned) == pair["completion"] + tokenizer.eos_token
        given = row["input_ids"][: len(row["input_ids"]) - len(learned)]
        assert tokenizer.decode(given) == pair["prompt"]
        assert len(row["input_ids"]) <= BLOCK_SIZE


def test_only_the_adapter_learns_and_without_it_the_model_is_the_untouched_checkpoint(make_trainer):
    trainer = make_trainer()
    frozen = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if not p.requires_grad}
    learning = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    parameters = dict(trainer.model.named_parameters())
    assert all("lora_" in name for name in learning)
    assert all(torch.equal(parameters[name], value) for name, value in frozen.items())
    assert not any(torch.equal(parameters[name], value) for name, value in learning.items() if "lora_B" in name)
    after = trainer.evaluate()["eval_loss"]
    with trainer.model.disable_adapter():
        assert trainer.evaluate()["eval_loss"] == before
    assert after < before


def test_the_merged_model_is_the_adapted_one_without_peft(make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.train()
    _, tokenizer, _ = prepared()
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    trainer.model.eval()
    expected = trainer.model(**batch).logits
    RECIPE["merge_adapter"](trainer, tokenizer, tmp_path)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(merged).__name__ == "LlamaForCausalLM"
    torch.testing.assert_close(merged(**batch).logits, expected, rtol=1e-4, atol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == tokenizer.get_vocab()


class Poison(TrainerCallback):
    """Makes one weight infinite before the second update."""

    def __init__(self, part):
        self.part = part

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step == 1:
            with torch.no_grad():
                next(p for name, p in model.named_parameters() if self.part in name).view(-1)[0] = math.inf


@pytest.mark.parametrize("part", ["lora_A", "embed_tokens"])
def test_the_guard_stops_a_model_with_frozen_weights_too(make_trainer, part):
    trainer = make_trainer(callbacks=[Poison(part)])
    with pytest.raises(FloatingPointError, match="update 1: the loss or its gradient is not finite"):
        trainer.train()
    assert all(p.grad is None for p in trainer.model.parameters() if not p.requires_grad)


def test_accumulated_batches_are_one_batch(make_trainer):
    losses = []
    for per_device, accumulated in ((8, 1), (2, 4)):
        trainer = make_trainer(per_device_train_batch_size=per_device, gradient_accumulation_steps=accumulated)
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


# --- the arguments


def test_the_arguments_are_the_recipes_and_trls_beside_them():
    ours = {field: getattr(sft_arguments(None), field) for field in RecipeArguments.__dataclass_fields__}
    recipe = RecipeArguments(output_dir="unused", use_cpu=True, precision="fp32", disable_tqdm=True)
    own = {"torch_compile", "label_names", "lr_scheduler_kwargs"}
    assert {name for name, value in ours.items() if str(value) != str(getattr(recipe, name))} <= own | {
        "accelerator_config"
    }
    assert isinstance(sft_arguments(None), SFTConfig)


# TRL's default -> the recipe's, for each field that both have
CHANGED_BY_TRL = {
    "gradient_checkpointing": (True, None),
    "bf16": (None, False),
    "logging_steps": (10, 500),
    "learning_rate": (2e-5, 1e-3),
}


def test_where_trl_has_another_default_the_recipe_s_own_counts():
    ours, trls = SFTArguments.__dataclass_fields__, SFTConfig.__dataclass_fields__
    plain = RecipeArguments.__dataclass_fields__
    differing = {
        name: (trls[name].default, ours[name].default)
        for name in set(trls) & set(plain)
        if trls[name].default != plain[name].default
    }
    from_recipe = {
        "torch_compile",
        "logging_nan_inf_filter",
        "report_to",
        "ddp_find_unused_parameters",
        "lr_scheduler_kwargs",
    }
    assert {name: pair for name, pair in differing.items() if name not in from_recipe} == CHANGED_BY_TRL


def test_precision_is_the_recipes_choice_and_bf16_is_not_trls():
    assert not sft_arguments(None).bf16
    assert sft_arguments(None, precision="bf16").bf16
    auto = sft_arguments(None, precision="auto")
    assert auto.bf16 == (auto.precision == "bf16")


def test_the_trainer_changes_none_of_the_arguments(make_trainer):
    args = sft_arguments(BLOCK_SIZE).to_dict()
    after = make_trainer().args.to_dict()
    settings = {"output_dir", "per_device_train_batch_size", "max_steps", "learning_rate", "lr_scheduler_type"}
    settings |= {"warmup_steps", "logging_steps", "save_strategy", "logging_dir"}
    assert {name for name in args if args[name] != after[name]} <= settings


def parse(*flags):
    kinds = (RECIPE["CheckpointArguments"], DataArguments, RECIPE["LoraArguments"], WarmupArguments, SFTArguments)
    return parse_arguments(*kinds, argv=[str(flag) for flag in flags])


@pytest.mark.parametrize("config", sorted(CONFIGS.iterdir()), ids=lambda path: path.stem)
def test_every_config_is_read(config, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    flags = ["--use_cpu", "true"] + (["--model", tmp_path] if config.stem != "smoke" else [])
    _, data_args, lora_args, warmup_args, args = parse("--config", config, *flags)
    assert args.output_dir == f"runs/finetune_sft/{config.stem}"
    assert args.lr_scheduler_type.value in ("warmup_cosine", "exponential_warmup")
    assert warmup_args.reference_batch_size == args.per_device_train_batch_size
    assert data_args.dataset == "stdlib"
    assert lora_args.lora_rank >= 4


MISTAKES = [
    (
        ("--model", "runs/pretrain_clm/nowhere"),
        "model=runs/pretrain_clm/nowhere: there is no checkpoint yet; run pretrain_clm first, with "
        "configs/pretrain_clm/nowhere.yaml.",
    ),
    (("--max_length", "64"), "max_length=64: block_size is the length here; give block_size."),
    (
        ("--torch_compile", "auto"),
        "torch_compile=auto needs batches of one length, and pairs differ; give true or false.",
    ),
    (("--lora_rank", "0"), "lora_rank=0: give a whole number, 1 or more."),
]


@pytest.mark.parametrize(("flags", "message"), MISTAKES, ids=[message.split("=")[0] for _, message in MISTAKES])
def test_a_mistake_is_one_line(flags, message):
    with pytest.raises(SystemExit, match=rf"\A{re.escape(f'error: {message}')}\Z"):
        parse(*flags, "--use_cpu", "true")


# --- the whole recipe


def test_the_smoke_run_of_two_updates(tmp_path):
    settings = {
        "config": CONFIGS / "smoke.yaml",
        "output_dir": tmp_path / "run",
        "dataset": ASYNCIO,
        "vocab_size": 512,
        "validation_fraction": 0.2,
        "precision": "fp32",
        "max_steps": 2,
        "warmup": 1,
        "logging_steps": 1,
        "disable_tqdm": "true",
    }
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    environment = {**os.environ, "HFWARMUP_PYTHON": sys.executable, "NUM_PROCESSES": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"HF_DATASETS_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [ROOT / "launch.sh", "finetune_sft", *flags], env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    folder = tmp_path / "run"
    rows = read_learning_rates(folder / "learning_rates.csv")
    assert rows == [(0, 1e-7, 1e-7), (1, 1e-2, 1e-2)]
    weights = load_file(folder / "adapter_model.safetensors")
    said = run.stdout + run.stderr
    assert f"with LoRA of rank 4: {sum(map(torch.numel, weights.values())):,} of " in said
    assert f"model     {folder / 'adapter_model.safetensors'}" in said
    assert f"merged    {folder / 'merged' / 'model.safetensors'}" in said
    assert "Warning" not in said
    results = json.loads((folder / "all_results.json").read_text())
    assert results["eval_baseline_loss"] == pytest.approx(math.log(512), abs=0.2)  # a new model guesses
    assert {"eval_loss", "eval_perplexity", "eval_mean_token_accuracy", "train_loss"} <= set(results)
    assert (folder / "schedule.png").stat().st_size > 1000
