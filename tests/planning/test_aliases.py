"""What is advised for a name from elsewhere can be written: the setting exists and takes the value."""

from __future__ import annotations

import pytest
from ruamel.yaml import YAML

from hfwarmup.planning.aliases import ALIASES, advice
from hfwarmup.planning.config import unknown_key
from hfwarmup.planning.recipe_files import find_recipe, import_script, recipe_names
from hfwarmup.planning.values import hints_of, read_value

AS_FOUND = [None, True, 0, 1, 100, 0.05, 1e-5, "bfloat16", "cosine", "auto", "word", ["q_proj"], {"_component_": "x"}]
"""Values as they stand in public configs of other projects."""


@pytest.mark.parametrize("key", ALIASES)
@pytest.mark.parametrize("recipe", recipe_names())
def test_advice_with_a_value_is_valid(recipe, key):
    hints = hints_of(*import_script(find_recipe(recipe)).ARGUMENTS)
    for value in AS_FOUND:
        line = advice(key, value, hints)
        setting, has_value, text = (line or "").partition(": ")
        if has_value and "(" not in text and "," not in text:
            read_value(setting, YAML(typ="safe").load(text), hints[setting])


MEANT = [
    # key, value, the settings that there are with their types, what is said
    ("torch_dtype", "bfloat16", {"precision": str, "torch_compile": str}, "write precision: bf16."),
    ("dtype", "float32", {"precision": str}, "write precision: fp32."),
    ("optimizer", {"_component_": "torch.optim.AdamW"}, {"optim": str}, "write optim."),
    ("val_set_size", 0.1, {"validation_fraction": float, "vocab_size": int}, "write validation_fraction: 0.1."),
    ("val_set_size", 2000, {"validation_fraction": float}, "write validation_fraction."),
    ("lora_target_modules", ["q"], {"lora_targets": str, "optim_target_modules": str}, "write lora_targets."),
    ("lora_target_modules", ["q"], {"optim_target_modules": str}, "Remove it, or see --help."),
    ("lr_scheduler", "cosine", {"lr_scheduler_type": str}, "write lr_scheduler_type: warmup_cosine."),
    ("warmup_ratio", 0, {"warmup": str}, 'write warmup: "0%" (transformers 5 has no warmup_ratio).'),
]


@pytest.mark.parametrize(("key", "value", "hints", "said"), MEANT)
def test_a_name_from_elsewhere_gets_the_right_one(key, value, hints, said):
    assert unknown_key(key, hints, value).endswith(said)
