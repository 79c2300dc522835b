"""A new model fits its data, a setting it does not have is an error, and a checkpoint comes back as it was."""

from __future__ import annotations

import re

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, set_seed

from hfwarmup.planning.arguments import ModelArguments
from hfwarmup.recipe.model import build_model, new_config

SMALL = {
    "llama": {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
    },
    "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 1},
    "gpt_neox": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1},
}


@pytest.fixture(scope="module")
def tokenizer():
    """21 entries, so that no round number is right by chance."""
    words = {word: index for index, word in enumerate(["<|endoftext|>", *"abcdefghijklmnopqrst"])}
    backend = Tokenizer(WordLevel(words, unk_token="<|endoftext|>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|endoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>"
    )


def arguments(model_type: str, **overrides) -> ModelArguments:
    return ModelArguments(model_type=model_type, config_overrides={**SMALL[model_type], **overrides})


@pytest.mark.parametrize("model_type", SMALL)
def test_a_new_model_fits_the_tokenizer_and_the_blocks(model_type, tokenizer):
    config = new_config(arguments(model_type), tokenizer, block_size=12)
    assert (config.model_type, config.vocab_size, config.max_position_embeddings) == (model_type, 21, 12)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id, config.use_cache) == (0, 0, None, False)
    assert {name: getattr(config, name) for name in SMALL[model_type]} == SMALL[model_type]


def test_settings_that_are_given_win_over_those_of_the_data(tokenizer):
    overrides = {"vocab_size": 32, "max_position_embeddings": 64, "use_cache": True}
    config = new_config(arguments("llama", **overrides), tokenizer, block_size=12)
    assert {name: getattr(config, name) for name in overrides} == overrides


@pytest.mark.parametrize("model_type", SMALL)
def test_a_new_model_computes_the_loss_of_a_block(model_type, tokenizer):
    """The loss of an untrained model is near that of a uniform guess, and it says nothing about it."""
    set_seed(0)
    model = build_model(AutoModelForCausalLM, arguments(model_type), tokenizer, block_size=12)
    block = torch.arange(12)[None]
    assert model(input_ids=block, labels=block).loss.item() == pytest.approx(torch.tensor(21.0).log().item(), abs=0.3)


@pytest.mark.parametrize(
    ("model_type", "overrides", "message"),
    [
        ("", {}, "no model is named; give --config with a file of configs/, or a model, or model_type and "
         "config_overrides."),
        ("lama", {}, "model_type='lama' is no architecture of transformers; did you mean 'llama'?"),
        ("llama", {"head_dims": 3}, "config_overrides: llama has no setting 'head_dims'; did you mean 'head_dim'?"),
        ("gpt2", {"n_embed": 3}, "config_overrides: gpt2 has no setting 'n_embed'; did you mean 'n_embd'?"),
    ],
)  # fmt: skip
def test_what_transformers_does_not_know_is_one_line(model_type, overrides, message, tokenizer):
    model = ModelArguments(model_type=model_type, config_overrides=overrides)
    with pytest.raises(ValueError, match=rf"\A{re.escape(message)}\Z"):
        new_config(model, tokenizer, block_size=12)


@pytest.mark.parametrize(
    ("model_type", "overrides"), [("gpt2", {"n_head": 3}), ("llama", {"hidden_size": "x"})]
)  # fmt: skip
def test_settings_that_do_not_go_together_are_one_line(model_type, overrides, tokenizer):
    model = arguments(model_type, **overrides)
    start = re.escape(f"config_overrides={model.config_overrides}: cannot build {model_type} with them (")
    with pytest.raises(ValueError, match=rf"\A{start}[^\n]+\); change them\.\Z"):
        build_model(AutoModelForCausalLM, model, tokenizer, block_size=12)


def test_a_checkpoint_comes_back_as_it_was(tmp_path, tokenizer, tiny_llama):
    saved = tiny_llama()
    saved.save_pretrained(tmp_path)
    loaded = build_model(AutoModelForCausalLM, ModelArguments(model=str(tmp_path)), tokenizer, block_size=12)
    assert loaded.config.vocab_size == saved.config.vocab_size  # the checkpoint's, not the tokenizer's
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in saved.state_dict().items())


@pytest.mark.parametrize("made", [False, True], ids=["no such folder", "an empty folder"])
def test_a_checkpoint_that_is_not_there_is_one_line(made, tmp_path, tokenizer, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "model"
    if made:
        folder.mkdir()
    start = re.escape(f"model={folder}: cannot be loaded (")
    with pytest.raises(ValueError, match=rf"\A{start}[^\n]+\); name a checkpoint's folder\.\Z"):
        build_model(AutoModelForCausalLM, ModelArguments(model=str(folder)), tokenizer, block_size=12)
