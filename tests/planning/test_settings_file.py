"""The resolved settings are a config again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hfwarmup.planning.config import load_config
from hfwarmup.planning.settings_file import Setting, settings_text

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def read(tmp_path, *settings: Setting) -> dict:
    path = tmp_path / "config.yaml"
    path.write_text(settings_text(settings, recipe="mine", notes={}), encoding="utf-8", newline="")
    return load_config(path).values


@given(value=PLAIN)
def test_a_value_comes_back_as_it_was(value, tmp_path_factory):
    folder = tmp_path_factory.mktemp("config", numbered=True)
    back = read(folder, Setting(name="value", value=value, origin="flag"))["value"]
    assert back == value
    assert type(back) is type(value)


def test_what_was_set_comes_first_and_a_secret_not_at_all(tmp_path):
    names = {"seed": "default", "warmup": "a.yaml:2", "hub_token": "flag", "model": "default", "bf16": "flag"}
    settings = [Setting(name=name, value="x", origin=origin) for name, origin in names.items()]
    assert list(read(tmp_path, *settings)) == ["warmup", "bf16", "seed", "model"]
