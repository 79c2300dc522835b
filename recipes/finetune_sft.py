"""Fine-tune a causal language model on docstring-to-code pairs: TRL's SFTTrainer, LoRA, and a named warmup schedule.

    ./launch.sh finetune_sft --config configs/finetune_sft/stdlib.yaml [--key value …]

A script to copy and change: arguments, data, model, plan, training, results. Other pairs: change `prepare_pairs`.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from datasets import DatasetDict
from peft import LoraConfig
from transformers import AutoModelForCausalLM, Conv1D, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from hfwarmup.recipe import (
    DataArguments,
    ModelArguments,
    Range,
    RecipeArguments,
    Run,
    UserError,
    WarmupArguments,
    build_model,
    build_tokenizer,
    check_not_empty,
    explained,
    find_pairs,
    find_rows,
    load_corpus,
    parse_arguments,
    run_recipe,
    without_dataset_bars,
)

logger = logging.getLogger("hfwarmup.recipe")


@dataclass(kw_only=True)
class CheckpointArguments(ModelArguments):
    """ModelArguments; where the checkpoint of another recipe is missing, the error says how to make it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        match Path(self.model).parts:
            case ("runs", recipe, run, *_) if not Path(self.model, "config.json").is_file():
                raise UserError(
                    f"model={self.model}: there is no checkpoint yet; run {recipe} first, with "
                    f"configs/{recipe}/{run}.yaml."
                )


@dataclass(kw_only=True)
class LoraArguments:
    """Which low-rank matrices are trained beside the frozen weights (Hu et al. 2021, arXiv:2106.09685)."""

    lora_rank: int = field(default=16, metadata={"help": "rank of the two matrices of each layer"})
    lora_alpha: int = field(default=32, metadata={"help": "their product is scaled by lora_alpha / lora_rank"})
    lora_dropout: float = field(default=0.0, metadata={"help": "dropout before the matrices, in [0, 1)"})
    lora_targets: str | list[str] = field(
        default="all-linear",
        metadata={"help": "all-linear (every one but the output layer), a list of names, or a regex of names"},
    )
    merge: bool = field(default=False, metadata={"help": "also write the model with the adapter added in: merged/"})

    def __post_init__(self) -> None:
        Range(1, whole=True).check("lora_rank", self.lora_rank)
        Range(1, whole=True).check("lora_alpha", self.lora_alpha)
        Range(0, 1, below=True).check("lora_dropout", self.lora_dropout)


OF_OTHER_DATA = (
    "activation_offloading", "assistant_only_loss", "chat_template_path", "dataset_text_field", "eos_token",
    "model_init_kwargs", "pad_token", "padding_free", "router_aux_loss_coef", "trust_remote_code",
)  # fmt: skip
"""Settings of TRL for conversations, other models and other tokenizers than this recipe's."""


@dataclass(kw_only=True)
class SFTArguments(RecipeArguments, SFTConfig):
    """RecipeArguments and SFTConfig in one.

    A field of both has the default of RecipeArguments, not TRL's: no `gradient_checkpointing`, a precision that fits.
    """

    max_length: int | None = field(default=None, metadata={"help": "not used: block_size is the length"})
    torch_compile: bool | Literal["auto"] = field(  # type: ignore[assignment]
        default=False, metadata={"help": "true or false; each batch has the length of its longest pair"}
    )

    def __post_init__(self) -> None:
        if self.max_length is not None:
            raise UserError(f"max_length={self.max_length}: block_size is the length here; give block_size.")
        for name in OF_OTHER_DATA:
            if getattr(self, name) != getattr(SFTConfig, name):
                raise UserError(f"{name}={getattr(self, name)!r}: this recipe cannot follow it; remove it.")
        super().__post_init__()
        if self.auto_compile:
            raise UserError("torch_compile=auto needs batches of one length, and pairs differ; give true or false.")
        self.label_names = self.label_names or ["labels"]  # Trainer finds none in a PEFT model, and warns


def prepare_pairs(data: DataArguments, args: SFTArguments) -> tuple[PreTrainedTokenizerBase, DatasetDict]:
    """The tokenizer, and the pairs of the splits `train` and `validation`, each of at most `block_size` tokens.

    A file is in the same split as in `pretrain_clm`, so the model has not seen a validation pair in pretraining.
    Validation pairs of the train split are left out, and pairs that are too long: a cut body teaches a wrong end.
    """
    with args.main_process_first():
        corpus = load_corpus(data, seed=args.data_seed or 0)
        tokenizer = build_tokenizer(data, corpus["train"])
        found = find_rows(corpus, find_pairs, ["prompt", "completion"])
    pairs, seen = DatasetDict(), set()
    for split, dataset in found.items():
        texts = [pair["prompt"] + pair["completion"] for pair in dataset]
        lengths = [len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]] if texts else []
        fits = [length < data.block_size for length in lengths]  # the eos token is one more
        kept = [i for i, text in enumerate(texts) if fits[i] and not (split == "validation" and text in seen)]
        logger.info("%s: %d of %d pairs have at most %d tokens", split, len(kept), len(texts), data.block_size)
        pairs[split] = dataset.select(kept)
        seen.update(texts)
    check_not_empty(pairs, data, "pair left")
    return tokenizer, pairs


def merge_adapter(trainer: SFTTrainer, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the model with the adapter added into its weights, which loads without peft."""
    if trainer.is_world_process_zero():
        for part in (trainer.model.merge_and_unload(), tokenizer):
            part.save_pretrained(folder)
        logger.info("merged    %s", folder / "model.safetensors")


ARGUMENTS = (CheckpointArguments, DataArguments, LoraArguments, WarmupArguments, SFTArguments)
FACTS = {"tokens_per_sample": None, "trainer": True}


def main() -> None:
    # 1. Arguments: the YAML file of --config, then flags, which win.
    model_args, data_args, lora_args, warmup_args, args = parse_arguments(*ARGUMENTS)
    run = Run(args, warmup_args)

    # 2. Data: pairs of signature with docstring and body, split by file, in TRL's prompt and completion columns.
    data_args.tokenizer = data_args.tokenizer or model_args.model
    tokenizer, pairs = prepare_pairs(data_args, args)
    args.max_length = data_args.block_size
    args.dataset_num_proc = data_args.tokenize_workers or None

    # 3. Model: a checkpoint, or a new one from a config. Its weights stay as they are; low-rank matrices learn.
    model = build_model(AutoModelForCausalLM, model_args, tokenizer, data_args.block_size)
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora_args.lora_rank,
        lora_alpha=lora_args.lora_alpha,
        lora_dropout=lora_args.lora_dropout,
        target_modules=lora_args.lora_targets,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # the layers of GPT-2
    )

    # 4. Plan: peak learning rate and warmup at the real global batch.
    planned = run.plan(model, pairs["train"])

    # 5. Training, on the completions' loss. The first evaluation is of the checkpoint: the adapter adds nothing yet.
    with without_dataset_bars(), explained("TRL refuses these settings"):  # it makes several passes over each split
        trainer = SFTTrainer(
            model=model,
            args=planned,
            train_dataset=pairs["train"],
            eval_dataset=pairs["validation"],
            processing_class=tokenizer,
            peft_config=lora,
        )
    trained, total = trainer.model.get_nb_trainable_parameters()
    share = f"{trained:,} of {total:,} parameters ({trained / total:.1%})"
    logger.info("with LoRA of rank %d: %s are trained", lora_args.lora_rank, share)
    untouched = trainer.evaluate()
    run.train(trainer)

    # 6. Results: adapter, metrics, pictures; on request the merged model.
    metrics = trainer.evaluate()
    metrics["eval_perplexity"] = math.exp(min(metrics["eval_loss"], 700.0))
    metrics |= {f"eval_baseline_{name}": untouched[f"eval_{name}"] for name in ("loss", "mean_token_accuracy")}
    before, after = (
        f"{results['eval_loss']:.3f} nats a token, {results['eval_mean_token_accuracy']:.1%} of the tokens right"
        for results in (untouched, metrics)
    )
    run.finish(
        trainer, metrics, summary=f"completions: {before} from the untouched checkpoint; {after} with the adapter"
    )
    if lora_args.merge:
        merge_adapter(trainer, tokenizer, Path(str(args.output_dir), "merged"))


if __name__ == "__main__":
    run_recipe(main)
