"""Parameter groups that are split for warmups of their own lengths."""

from __future__ import annotations

import pytest
import torch

from hfwarmup import UserError
from hfwarmup.optim.groups import stretch_warmup


def test_parameters_that_have_names_keep_them_in_the_groups_that_were_split():
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
    optimizer = torch.optim.AdamW(model.named_parameters())
    stretch_warmup(optimizer, model, {"weight": 0.5})
    named = dict(model.named_parameters())
    groups = [group["param_names"] for group in optimizer.param_groups]
    assert groups == [["0.weight", "1.weight"], ["0.bias", "1.bias"]]
    for group in optimizer.param_groups:
        assert all(
            named[name] is parameter for name, parameter in zip(group["param_names"], group["params"], strict=True)
        )
    other = torch.optim.AdamW(model.named_parameters())
    stretch_warmup(other, model, {"weight": 0.5})
    other.load_state_dict(optimizer.state_dict())
    assert [group["param_names"] for group in other.param_groups] == groups


@pytest.mark.parametrize(
    ("pattern", "factor", "message"),
    [
        ("0", "x", "stretch['0']='x': give a factor of the warmup's length, above 0."),
        ("0", 0, "stretch['0']=0: give a factor of the warmup's length, above 0."),
        ("(", 2.0, "stretch '(' is not a regular expression (missing ), unterminated subpattern at position 0)"),
        ("bias_", 2.0, "stretch 'bias_' matches no parameter's name"),
    ],
)
def test_a_stretch_that_means_nothing_is_one_line_and_changes_nothing(pattern, factor, message):
    model = torch.nn.Sequential(torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UserError) as caught:
        stretch_warmup(optimizer, model, {pattern: factor})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert [len(group["params"]) for group in optimizer.param_groups] == [2]
