"""A new model's config: the architecture's own, with the recipe's settings, checked."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hfwarmup.schedules.options import did_you_mean
from hfwarmup.training.arguments import ModelArguments


def new_config(model: ModelArguments, tokenizer: PreTrainedTokenizerBase, block_size: int) -> PretrainedConfig:
    """The config of a new `model.model_type`, for `tokenizer` and sequences of `block_size` tokens.

    Vocabulary, special tokens and length come from the data; `config_overrides` win. Raises ValueError for an unknown
    architecture and for a setting that it does not have, which transformers would keep in silence.
    """
    if model.model_type not in CONFIG_MAPPING:
        known = list(CONFIG_MAPPING.keys())
        raise ValueError(
            f"model_type={model.model_type!r} is no architecture of transformers{did_you_mean(model.model_type, known)}"
        )
    blank = AutoConfig.for_model(model.model_type)
    unknown = [name for name in model.overrides if not hasattr(blank, name)]
    if unknown:
        settings = list(blank.to_dict())
        raise ValueError(
            f"config_overrides: {model.model_type} has no setting {unknown[0]!r}{did_you_mean(unknown[0], settings)}"
        )
    settings_of_data: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": block_size,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
        "use_cache": False,
    }
    return AutoConfig.for_model(model.model_type, **{**settings_of_data, **model.overrides})
