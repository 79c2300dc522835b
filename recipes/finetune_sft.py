"""Fine-tune a causal language model on docstring-to-code pairs: TRL's SFTTrainer, LoRA, and a named warmup schedule.

    ./launch.sh finetune_sft --config configs/finetune_sft/stdlib.yaml [--key value …]

A script to copy and change: arguments, data, model, plan, training, results, in this order. For other pairs, replace
`write_pairs` by what makes a dataset of a `prompt` and a `completion` column.
"""

from __future__ import annotations

import ast
import logging
import math
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import datasets
import huggingface_hub.constants
from datasets import DatasetDict
from peft import LoraConfig
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, set_seed
from transformers.pytorch_utils import Conv1D
from trl import SFTConfig, SFTTrainer

import hfwarmup
from hfwarmup.errors import UserError
from hfwarmup.planning.arguments import DataArguments, ModelArguments, WarmupArguments
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.recipe.console import run_recipe, speak_from_rank_zero
from hfwarmup.recipe.corpus import load_corpus
from hfwarmup.recipe.data import build_tokenizer
from hfwarmup.recipe.model import build_model
from hfwarmup.recipe.parsing import parse_arguments
from hfwarmup.recipe.run import finish_run, train_to_end
from hfwarmup.recipe.run_config import KeepConfig
from hfwarmup.run_folder.checkpoints import find_checkpoint
from hfwarmup.trainer.monitor import watch_warmup
from hfwarmup.trainer.non_finite import NonFiniteGuard
from hfwarmup.trainer.planning import plan_training, planned_arguments
from hfwarmup.trainer.recorder import RunRecorder
from hfwarmup.trainer.replan import Replan
from hfwarmup.trainer.tracking import track_plan

logger = logging.getLogger("hfwarmup.recipe")


@dataclass(kw_only=True)
class CheckpointArguments(ModelArguments):
    """ModelArguments, which say how to make the checkpoint of another recipe when it is not there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        match Path(self.model).parts:
            case ("runs", recipe, run, *_) if not Path(self.model, "config.json").is_file():
                command = f"./launch.sh {recipe} --config configs/{recipe}/{run}.yaml"
                raise UserError(f"model={self.model}: there is no checkpoint yet; make it with {command}")


@dataclass(kw_only=True)
class LoraArguments:
    """Which low-rank matrices are trained beside the frozen weights (Hu et al. 2021, arXiv:2106.09685)."""

    lora_rank: int = field(default=16, metadata={"help": "rank of the two matrices of each layer"})
    lora_alpha: int = field(default=32, metadata={"help": "their product is scaled by lora_alpha / lora_rank"})
    lora_dropout: float = field(default=0.0, metadata={"help": "dropout before the matrices, in [0, 1)"})
    lora_targets: str = field(
        default="all-linear", metadata={"help": "all-linear (every one but the output layer), or a regex of names"}
    )
    merge: bool = field(default=False, metadata={"help": "also write the model with the adapter added in: merged/"})

    def __post_init__(self) -> None:
        if self.lora_rank < 1:
            raise UserError(f"lora_rank={self.lora_rank} < 1: nothing would be trained; give for example 16.")


@dataclass(kw_only=True)
class SFTArguments(RecipeArguments, SFTConfig):
    """RecipeArguments and SFTConfig in one.

    The fields that both have keep the recipe's default (`gradient_checkpointing` off, the precision chosen), not TRL's.
    """

    max_length: int | None = field(default=None, metadata={"help": "block_size of the data says it"})
    torch_compile: bool | Literal["auto"] = field(  # type: ignore[assignment]
        default=False, metadata={"help": "true or false; each batch has the length of its longest pair"}
    )

    def __post_init__(self) -> None:
        if self.max_length is not None:
            raise UserError(f"max_length={self.max_length}: block_size is the length here; give block_size.")
        super().__post_init__()
        if self.auto_compile:
            raise UserError("torch_compile=auto times batches of one length, and pairs differ; give true or false.")
        self.label_names = self.label_names or ["labels"]  # a PEFT model hides the base model's, and Trainer warns


def find_pairs(source: str) -> Iterator[tuple[str, str]]:
    """Every function of a Python source that has a docstring and code after it, as (prompt, completion).

    The prompt goes from `def` to the docstring's closing quotes, the completion from the line break there to the
    function's end, so that no token lies across. Both are dedented.

    >>> list(find_pairs('class A:\\n    def one(self):\\n        "One."\\n        return 1\\n'))
    [('def one(self):\\n    "One."', '\\n    return 1')]
    """
    lines = source.split("\n")
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) or ast.get_docstring(function) is None:
            continue
        first, last, docstring_end = function.lineno - 1, function.end_lineno, function.body[0].end_lineno
        code_beside = lines[docstring_end - 1].encode()[function.body[0].end_col_offset :].strip()
        if len(function.body) < 2 or code_beside:
            continue
        indent = lines[first][: function.col_offset]
        prompt, body = (
            "\n".join(line.removeprefix(indent) for line in part).rstrip()
            for part in (lines[first:docstring_end], lines[docstring_end:last])
        )
        yield prompt, "\n" + body


def write_pairs(documents: dict[str, list[str]]) -> dict[str, list[str]]:
    """The pairs of a batch of sources; a source that is not this Python's has none."""
    pairs: list[tuple[str, str]] = []
    for source in documents["text"]:
        try:
            pairs += find_pairs(source)
        except (SyntaxError, ValueError):  # ValueError: null bytes
            continue
    return {"prompt": [prompt for prompt, _ in pairs], "completion": [completion for _, completion in pairs]}


def prepare_pairs(data: DataArguments, args: SFTArguments) -> tuple[PreTrainedTokenizerBase, DatasetDict]:
    """The tokenizer, and the pairs of the splits `train` and `validation`, each of at most `block_size` tokens.

    A file is on the side where `pretrain_clm` has it, so no validation pair was seen in pretraining. Left out are
    validation pairs that the train split has too, and pairs that would be cut, since a cut body teaches a wrong end.
    """
    with args.main_process_first():
        corpus = load_corpus(data, seed=args.data_seed or 0)
        tokenizer = build_tokenizer(data, corpus["train"])
        written = corpus.map(write_pairs, batched=True, batch_size=64, remove_columns=corpus["train"].column_names)
    pairs, seen = DatasetDict(), set()
    for split, dataset in written.items():
        texts = [pair["prompt"] + pair["completion"] for pair in dataset]
        lengths = [len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]] if texts else []
        kept = [
            index
            for index, (text, length) in enumerate(zip(texts, lengths, strict=True))
            if length < data.block_size and not (split == "validation" and text in seen)  # the eos token comes on top
        ]
        logger.info("%s: %d of %d pairs have at most %d tokens", split, len(kept), len(texts), data.block_size)
        if not kept:
            sys.exit(f"error: dataset={data.dataset}: the {split} split has no pair left; give more files.")
        pairs[split] = dataset.select(kept)
        seen.update(texts)
    return tokenizer, pairs


def merge_adapter(trainer: SFTTrainer, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the model with the adapter added into its weights, which loads without peft."""
    if trainer.is_world_process_zero():
        trainer.model.merge_and_unload().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        logger.info("merged    %s", folder / "model.safetensors")


ARGUMENTS = (CheckpointArguments, DataArguments, LoraArguments, WarmupArguments, SFTArguments)


def main() -> None:
    # 1. Arguments: the YAML file of --config, then flags.
    hfwarmup.register()
    model_args, data_args, lora_args, warmup_args, args = parse_arguments(*ARGUMENTS)
    speak_from_rank_zero()
    datasets.disable_progress_bars()  # TRL prepares each split in five passes
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft asks transformers so
    warnings.filterwarnings("ignore", category=SyntaxWarning)  # of the sources that are read
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True  # TRL reports every new trainer to the hub
    checkpoint = find_checkpoint(args.output_dir, args.resume)
    set_seed(args.seed)

    # 2. Data: pairs of signature with docstring and body, split by file, in TRL's prompt and completion columns.
    data_args.tokenizer = data_args.tokenizer or model_args.model
    tokenizer, pairs = prepare_pairs(data_args, args)
    args.max_length = data_args.block_size
    args.dataset_num_proc = data_args.tokenize_workers or None

    # 3. Model: a checkpoint, or a new one from a config; its weights are frozen, and low-rank matrices learn.
    model = build_model(AutoModelForCausalLM, model_args, tokenizer, data_args.block_size)
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora_args.lora_rank,
        lora_alpha=lora_args.lora_alpha,
        lora_dropout=lora_args.lora_dropout,
        target_modules=lora_args.lora_targets,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2's layers
    )
    logger.info("%s", args.precision_reason)

    # 4. Plan: peak learning rate and warmup at the real global batch.
    num_samples = len(pairs["train"])
    plan = plan_training(args, warmup_args, num_samples=num_samples, checkpoint=checkpoint)
    planned = planned_arguments(args, warmup_args, plan)
    logger.info("%s", plan)

    # 5. Training, on the loss of the completions alone. Before the first update the adapter adds nothing, so the
    #    first evaluation is that of the untouched checkpoint.
    replan = Replan(args, warmup_args, num_samples=num_samples)
    trainer = SFTTrainer(
        model=model,
        args=planned,
        train_dataset=pairs["train"],
        eval_dataset=pairs["validation"],
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=[replan, NonFiniteGuard(), RunRecorder(), KeepConfig()],
    )
    trained, all_parameters = trainer.model.get_nb_trainable_parameters()
    share = f"{trained:,} of {all_parameters:,} parameters ({trained / all_parameters:.1%})"
    logger.info("%s with LoRA of rank %d: %s are trained", model.config.model_type, lora_args.lora_rank, share)
    untouched = trainer.evaluate()
    watch_warmup(trainer)
    track_plan(trainer)
    train_metrics = train_to_end(trainer, checkpoint, total_steps=plan.total_steps)

    # 6. Results: adapter, metrics, pictures; on request the merged model.
    metrics = trainer.evaluate()
    before, after = untouched["eval_loss"], metrics["eval_loss"]
    accuracy_before, accuracy_after = untouched["eval_mean_token_accuracy"], metrics["eval_mean_token_accuracy"]
    metrics["eval_perplexity"] = math.exp(min(after, 700.0))
    metrics["eval_baseline_loss"], metrics["eval_baseline_mean_token_accuracy"] = before, accuracy_before
    finish_run(
        trainer,
        train_metrics=train_metrics,
        eval_metrics=metrics,
        summary=f"completions: {before:.3f} nats a token, {accuracy_before:.1%} of the tokens right from the untouched "
        f"checkpoint; {after:.3f} nats, {accuracy_after:.1%} with the adapter",
    )
    if lora_args.merge:
        merge_adapter(trainer, tokenizer, Path(str(args.output_dir), "merged"))


if __name__ == "__main__":
    run_recipe(main)
