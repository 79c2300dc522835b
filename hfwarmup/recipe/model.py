"""The model of a recipe: a checkpoint, or a new one with checked settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hfwarmup.errors import UserError, did_you_mean
from hfwarmup.planning.arguments import ModelArguments


def build_model(
    auto_class: Any, model: ModelArguments, tokenizer: PreTrainedTokenizerBase, block_size: int, **settings: Any
) -> PreTrainedModel:
    """The checkpoint `model.model`, or else a new model with `new_config`.

    Args:
        auto_class: an AutoModelFor… of transformers.
        model: which one.
        tokenizer: its vocabulary and special tokens are those of a new model.
        block_size: the longest sequence, in tokens, of a new model.
        settings: go into the config of either, such as `num_labels`.

    Raises:
        UserError: the model cannot be loaded or built.
    """
    if not model.model:
        config = new_config(model, tokenizer, block_size, **settings)
        with explained(_cannot_build(model)):
            built = auto_class.from_config(config)
        if built.loss_type is None:  # for GPT-2 transformers would warn that it finds none
            built.loss_type = auto_class.__name__.removeprefix("AutoModel")
        return built
    try:
        return auto_class.from_pretrained(model.model, **settings)
    except (OSError, ValueError) as error:
        raise UserError(
            f"model={model.model}: cannot be loaded ({str(error).splitlines()[0]}); name a checkpoint's folder."
        ) from error


def new_config(
    model: ModelArguments, tokenizer: PreTrainedTokenizerBase, block_size: int, **settings: Any
) -> PretrainedConfig:
    """The config of a new `model.model_type`, for `tokenizer` and sequences of `block_size` tokens.

    Vocabulary, special tokens and length come from the data; `settings` win over them, `config_overrides` over both.
    Raises UserError for an unknown architecture, and for a setting that the architecture does not have: transformers
    would accept it without effect.
    """
    if not model.model_type:
        raise UserError(
            "no model is named; give --config with a file of configs/, or a model, or model_type and config_overrides."
        )
    if model.model_type not in CONFIG_MAPPING:
        known = list(CONFIG_MAPPING.keys())
        raise UserError(
            f"model_type={model.model_type!r} is no architecture of transformers{did_you_mean(model.model_type, known)}"
        )
    blank = AutoConfig.for_model(model.model_type)
    unknown = [name for name in model.config_overrides if not hasattr(blank, name)]
    if unknown:
        hint = did_you_mean(unknown[0], list(blank.to_dict()))
        raise UserError(f"config_overrides: {model.model_type} has no setting {unknown[0]!r}{hint}")
    settings_of_data: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": block_size,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
        "use_cache": False,
    }
    with explained(_cannot_build(model)):
        return AutoConfig.for_model(model.model_type, **{**settings_of_data, **settings, **model.config_overrides})


def _cannot_build(model: ModelArguments) -> str:
    return f"config_overrides={model.config_overrides}: cannot build {model.model_type} with them"


@contextmanager
def explained(mistake: str) -> Iterator[None]:
    """Turn what a library raises for settings that do not fit together into a UserError that begins with `mistake`."""
    try:
        yield
    except (ValueError, TypeError, AssertionError, RuntimeError, OSError, StrictDataclassError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{mistake} ({' '.join(str(error).split())}); change them.") from error
