"""The monitor measures what it says, logs it where the Trainer logs, and leaves the training alone."""

from __future__ import annotations

import copy
import math
import random
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.utils import DistributedType
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, default_data_collator, set_seed

from hfwarmup.measuring.noise_scale import noise_and_signal
from hfwarmup.measuring.representation import effective_rank
from hfwarmup.schedules.warmup_shapes import radam
from hfwarmup.trainer.hidden_states import last_hidden_state
from hfwarmup.trainer.monitor import WarmupMonitor, _gradients_are_whole, watch_warmup

RUN = {"max_steps": 40, "lr_scheduler_type": "warmup_cosine", "warmup_steps": 10, "learning_rate": 1e-2}
LOGGED = RUN | {"logging_strategy": "steps", "logging_steps": 2}


def dropping_llama():
    """Two blocks with dropout in the attention, so that a draw too many shows in the weights."""
    set_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=16, num_key_value_heads=1, attention_dropout=0.3, **sizes))


def measured(trainer, name):
    """step -> value, of the entries that hold it."""
    key = f"warmup/{name}"
    return {entry["step"]: entry[key] for entry in trainer.state.log_history if key in entry}


def with_and_without(make, **options):
    """Two trained Trainers of `make()` that end bit-identical; the one that was watched is given back."""
    ends = []
    for watch in (False, True):
        trainer = make()
        if watch:
            watch_warmup(trainer, **options)
        set_seed(1)
        trainer.train()
        ends.append([p.detach().clone() for p in trainer.model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*ends, strict=True))
    return trainer


def test_a_run_with_it_and_one_without_end_bit_identical(make_trainer):
    trainer = with_and_without(
        lambda: make_trainer(trainer={"model": dropping_llama()}, gradient_accumulation_steps=2, **LOGGED)
    )
    assert measured(trainer, "effective_rank")


def test_modes_gradients_and_random_state_are_as_before(make_trainer):
    class Probe(TrainerCallback):
        def __init__(self):
            self.seen = []

        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            model = kwargs["model"]
            gradients = [p.grad.clone() for p in model.parameters()]
            self.seen.append((torch.get_rng_state(), gradients, [m.training for m in model.modules()]))

    before, after = Probe(), Probe()
    trainer = make_trainer(before, WarmupMonitor(), after, trainer={"model": dropping_llama()}, **LOGGED)
    trainer.model.model.norm.eval()  # one module of its own mode
    trainer.train()
    for (rng, gradients, modes), (later_rng, later_gradients, later_modes) in zip(before.seen, after.seen, strict=True):
        assert torch.equal(rng, later_rng)
        assert modes == later_modes
        assert all(torch.equal(*pair) for pair in zip(gradients, later_gradients, strict=True))


def test_the_rank_is_that_of_the_weights_after_the_update(make_trainer, blocks):
    trainer = make_trainer(**LOGGED)
    watch_warmup(trainer)
    trainer.train()
    batch = {name: torch.stack([row[name] for row in blocks(8)]) for name in ("input_ids", "labels")}
    with torch.no_grad():
        hidden = trainer.model.eval()(**batch, output_hidden_states=True).hidden_states[-1].flatten(0, 1)
    ranks, ratios = measured(trainer, "effective_rank"), measured(trainer, "effective_rank_ratio")
    assert ranks[40] == pytest.approx(effective_rank(hidden), rel=1e-5)
    assert len({round(ranks[step] / ratios[step], 9) for step in ranks}) == 1  # all over the same initial rank


def test_an_update_of_known_size(make_trainer):
    """SGD without momentum moves a matrix by lr x its gradient; clipped to a norm of 1e-3 the whole moves lr x 1e-3."""

    class Norms(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            if state.global_step == args.max_steps - 1:
                lr = kwargs["optimizer"].param_groups[0]["lr"]
                matrices = [p for p in kwargs["model"].parameters() if p.ndim == 2]
                self.largest = max(lr * (p.grad.norm() / p.norm()).item() for p in matrices)

    norms = Norms()
    trainer = make_trainer(norms, optim="sgd", **LOGGED)
    watch_warmup(trainer)
    trainer.train()
    assert measured(trainer, "relative_update")[40] == pytest.approx(norms.largest, rel=1e-3)
    assert measured(trainer, "max_relative_update")[40] >= max(measured(trainer, "relative_update").values())


def test_it_measures_at_twenty_points_that_are_logged_anyway(make_trainer):
    trainer = make_trainer(**LOGGED)
    watch_warmup(trainer)
    trainer.train()
    assert list(measured(trainer, "effective_rank")) == list(range(2, 41, 2))


def test_where_the_log_is_rarer_its_measurements_are_logged_too(make_trainer):
    trainer = make_trainer(**RUN, logging_strategy="steps", logging_steps=30)
    watch_warmup(trainer)
    trainer.train()
    assert sorted(measured(trainer, "effective_rank")) == list(range(2, 41, 2))
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == list(range(2, 41, 2))


def test_a_tracker_sees_the_values_too(make_trainer):
    class Tracker(TrainerCallback):
        def __init__(self):
            self.seen = {}

        def on_log(self, args, state, control, logs, **kwargs):
            if "loss" in logs:
                self.seen[state.global_step] = dict(logs)

    tracker = Tracker()  # an integration's callback stands before those of the caller, and so does the monitor
    trainer = make_trainer(tracker, **LOGGED)
    watch_warmup(trainer)
    trainer.train()
    ranks = measured(trainer, "effective_rank")
    assert {step: tracker.seen[step]["warmup/effective_rank"] for step in ranks} == ranks


def test_a_resumed_run_goes_on_from_what_was_measured_before(make_trainer, tmp_path):
    run = LOGGED | {"gradient_accumulation_steps": 2}
    whole = make_trainer(output_dir=str(tmp_path), save_strategy="steps", save_steps=20, **run)
    watch_warmup(whole)
    whole.train()
    resumed = make_trainer(output_dir=str(tmp_path), **run)
    watch_warmup(resumed)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-20"))
    for name in ("effective_rank_ratio", "max_relative_update", "noise_scale_samples"):
        assert measured(resumed, name) == pytest.approx(measured(whole, name))


def test_the_rectification_is_that_of_radam(make_trainer):
    trainer = make_trainer(**LOGGED, adam_beta2=0.95)
    watch_warmup(trainer)
    trainer.train()
    assert measured(trainer, "rectification")[20] == radam(0.95)(20)


def test_the_share_of_clipped_updates(make_trainer):
    trainer = make_trainer(**LOGGED, max_grad_norm=1e-6)
    watch_warmup(trainer)
    trainer.train()
    assert set(measured(trainer, "clipped_share").values()) == {1.0}


def test_the_noise_scale_is_made_of_the_micro_batches_and_the_batch(make_trainer, tiny_llama):
    """The second update is measured: its gradients again, from what the model was called with."""

    class Weights(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 1:
                self.before = copy.deepcopy(kwargs["model"].state_dict())

    weights, calls = Weights(), []
    trainer = make_trainer(weights, gradient_accumulation_steps=4, max_grad_norm=1e-3, **LOGGED)
    trainer.model.register_forward_pre_hook(
        lambda _, __, kwargs: calls.append(kwargs["input_ids"]) if torch.is_grad_enabled() else None,
        with_kwargs=True,
    )
    watch_warmup(trainer)
    trainer.train()
    model = tiny_llama()
    model.load_state_dict(weights.before)
    gradients = []
    for tokens in calls[4:8]:
        model.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    small = sum(gradient.square().sum().item() for gradient in gradients) / 4
    big = (sum(gradients) / 4).square().sum().item()
    noise, signal = noise_and_signal(small, big, small_batch=2, big_batch=8)
    expected = max(0.0, noise) / signal if signal > 0 else math.inf
    assert measured(trainer, "noise_scale_samples")[2] == pytest.approx(expected, rel=1e-4)


def test_micro_batches_of_one_sample_have_no_noise_however_many_labels_they_keep(make_trainer, blocks):
    """The same tokens everywhere; the first micro-batch of an update has one sample's labels and the second two's."""
    sample = blocks(1)[0]
    masked = {**sample, "labels": torch.full_like(sample["labels"], -100)}
    run = LOGGED | {"max_steps": 20, "logging_steps": 1, "train_sampling_strategy": "sequential"}
    trainer = make_trainer(
        trainer={"train_dataset": [sample, masked, sample, sample]}, gradient_accumulation_steps=2, **run
    )
    watch_warmup(trainer)
    trainer.train()
    noise, signal = measured(trainer, "gradient_noise"), measured(trainer, "gradient_signal")
    norms = {entry["step"]: entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry}
    assert list(noise) == list(range(1, 21))
    assert signal == pytest.approx({step: norm**2 for step, norm in norms.items()}, rel=1e-4)
    assert max(abs(noise[step]) / signal[step] for step in noise) < 1e-3


def test_the_batch_size_is_the_one_that_was_found_to_fit(make_trainer, monkeypatch):
    """Memory is short at 4 samples; accelerate tries fewer."""
    sizes = []
    monkeypatch.setattr(
        "hfwarmup.trainer.monitor.noise_and_signal", lambda *_, **batches: sizes.append(batches) or (1.0, 1.0)
    )

    class Full(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            if state.train_batch_size == 4:
                raise RuntimeError("CUDA out of memory.")

    own = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "auto_find_batch_size": True}
    trainer = make_trainer(Full(), **LOGGED | {"max_steps": 20, "logging_steps": 1}, **own)
    watch_warmup(trainer)
    trainer.train()
    fitting = trainer.state.train_batch_size
    assert fitting < 4
    assert sizes[0] == {"small_batch": fitting, "big_batch": 2 * fitting}


def test_the_rest_of_an_epoch_may_be_a_single_micro_batch(make_trainer, blocks):
    """Five micro-batches an epoch: updates of four, and of one that has nothing to compare."""
    every = LOGGED | {"logging_steps": 1, "max_steps": 20}
    trainer = make_trainer(trainer={"train_dataset": blocks(10)}, gradient_accumulation_steps=4, **every)
    watch_warmup(trainer)
    trainer.train()
    assert list(measured(trainer, "noise_scale_samples")) == list(range(1, 20, 2))
    assert not any(p._backward_hooks for p in trainer.model.parameters())


def test_a_gradient_with_the_scalers_factor_is_not_taken(monkeypatch):
    state = SimpleNamespace(distributed_type=DistributedType.MULTI_GPU)
    monkeypatch.setattr("hfwarmup.trainer.monitor.AcceleratorState", lambda: state)
    assert [_gradients_are_whole(SimpleNamespace(fp16=fp16)) for fp16 in (False, True)] == [True, False]
    state.distributed_type = DistributedType.FSDP
    assert not _gradients_are_whole(SimpleNamespace(fp16=False))


class Regression(torch.nn.Module):
    """The mean of (w x - y)^2, whose Hessian is 2 E[x x']."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 1, bias=False)

    def forward(self, x, labels):
        return {"loss": (self.linear(x).squeeze(-1) - labels).square().mean()}


POINTS = [{"x": torch.tensor(x), "labels": torch.tensor(1.0)} for x in ([1.0, 0, 0], [0, 2.0, 0], [0, 0, 3.0])]


class Pair(LlamaForCausalLM):
    """Takes `output_hidden_states` and gives none, as a model of two towers."""

    def forward(self, *args, output_hidden_states=False, **kwargs):
        return super().forward(*args, **kwargs)


class Loader:
    """An iterable that hides its data set."""

    def __init__(self, loader):
        self._loader = loader

    def __iter__(self):
        return iter(self._loader)

    def __len__(self):
        return len(self._loader)


def hide_dataset(trainer):
    loader = trainer.get_train_dataloader()
    trainer.get_train_dataloader = lambda: Loader(loader)


@pytest.mark.parametrize(
    ("parts", "change", "reason"),
    [
        (
            {"model": Regression(), "train_dataset": POINTS},
            None,
            "TypeError: Regression.forward() got an unexpected keyword argument 'output_hidden_states'",
        ),
        (
            {"model": Pair(dropping_llama().config)},
            None,
            "UserError: the output of Pair has neither hidden_states nor decoder_hidden_states",
        ),
        ({}, hide_dataset, "the training data has no samples to ask for"),
    ],
)
def test_where_no_rank_can_be_measured_it_says_why_and_the_run_goes_on(make_trainer, caplog, parts, change, reason):
    trainer = make_trainer(trainer=parts, remove_unused_columns=False, **LOGGED)
    if change:
        change(trainer)
    watch_warmup(trainer)
    with caplog.at_level("INFO", "hfwarmup.trainer.monitor"):
        trainer.train()
    said = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    assert said == [f"no effective rank is measured: {reason}"]
    assert measured(trainer, "effective_rank") == {}
    assert len(measured(trainer, "relative_update")) == 20


class Tagged(LlamaForCausalLM):
    """Takes the names of its samples, as a model of several tasks."""

    def forward(self, names, **kwargs):
        assert isinstance(names, list)
        return super().forward(**kwargs)


def test_what_a_collator_gives_beside_tensors_goes_to_the_model_as_it_is(make_trainer, blocks):
    def collate(samples):
        return {"names": ["a"] * len(samples), **default_data_collator(samples)}

    parts = {"model": Tagged(dropping_llama().config), "data_collator": collate}
    trainer = make_trainer(trainer=parts, remove_unused_columns=False, **LOGGED)
    watch_warmup(trainer)
    trainer.train()
    assert len(measured(trainer, "effective_rank")) == 20


@pytest.mark.parametrize("schedule", ["reduce_lr_on_plateau", "greedy"])
def test_a_scheduler_that_keeps_no_peaks_is_judged_at_its_learning_rate(make_trainer, caplog, blocks, schedule):
    run = LOGGED | {"lr_scheduler_type": schedule, "warmup_steps": 0, "learning_rate": 1.0, "eval_strategy": "epoch"}
    trainer = make_trainer(trainer={"eval_dataset": blocks(2)}, **run)
    watch_warmup(trainer)
    with caplog.at_level("WARNING", "hfwarmup.trainer.monitor"):
        trainer.train()
    (message,) = [record.getMessage() for record in caplog.records if record.name.endswith("monitor")]
    assert message.startswith("warmup too steep: too short for a peak of 1, by 10% of the run")


def test_the_sharpness_of_a_known_hessian_over_the_threshold(make_trainer):
    """2 E[x x'] = diag(2, 8, 18) / 3 has the sharpness 6; SGD without momentum stands 2 / lr."""
    run = LOGGED | {"lr_scheduler_type": "gradual_warmup", "optim": "sgd"}
    trainer = make_trainer(trainer={"model": Regression(), "train_dataset": POINTS}, **run)
    watch_warmup(trainer, sharpness=True)
    trainer.train()
    assert measured(trainer, "sharpness") == pytest.approx(dict.fromkeys(range(2, 41, 2), 6.0), rel=0.01)
    assert measured(trainer, "sharpness_ratio")[40] == pytest.approx(6.0 / (2 / 1e-2), rel=0.01)


def test_at_a_learning_rate_of_zero_nothing_is_too_sharp(make_trainer):
    """transformers' own linear schedule makes its first update with 0."""
    run = LOGGED | {"lr_scheduler_type": "linear", "logging_steps": 1, "max_steps": 20, "optim": "sgd"}
    trainer = make_trainer(trainer={"model": Regression(), "train_dataset": POINTS}, **run)
    watch_warmup(trainer, sharpness=True)
    trainer.train()
    ratios = measured(trainer, "sharpness_ratio")
    assert ratios[1] == 0.0
    assert ratios[2] > 0.0
    assert measured(trainer, "sharpness")[1] == pytest.approx(6.0, rel=0.01)


def test_an_optimizer_without_a_threshold_is_refused_before_the_first_update(make_trainer):
    trainer = make_trainer(optim="adagrad", **LOGGED)
    watch_warmup(trainer, sharpness=True)
    with pytest.raises(ValueError, match=r"^Adagrad has no known stability threshold.*without sharpness=True\.$"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_the_sharpness_under_autocast_is_that_of_single_precision(make_trainer, caplog):
    """One update at a learning rate that leaves the weights where they are."""
    run = LOGGED | {"max_steps": 20, "logging_steps": 1, "optim": "sgd", "learning_rate": 1e-12}
    found = []
    for bf16 in (False, True):
        trainer = make_trainer(trainer={"model": dropping_llama()}, bf16=bf16, **run)
        watch_warmup(trainer, sharpness=True)
        with caplog.at_level("INFO", "hfwarmup.trainer.sharpness_probe"):
            trainer.train()
        found.append(measured(trainer, "sharpness")[1])
    assert found[1] == pytest.approx(found[0], rel=0.02)
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("sharpness by")]
    assert [line.split(",")[0] for line in said] == ["sharpness by double backward"] * 2


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from POINTS * 40


class Unlabelled(Regression):
    """Takes no labels; its loss is made by its Trainer."""

    def forward(self, x):
        return {"predicted": self.linear(x).squeeze(-1)}


class LossOfItsOwn(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        return (model(**inputs)["predicted"] - labels).square().mean()


@pytest.mark.parametrize(
    ("model", "data", "reason"),
    [
        (Regression(), Stream(), "the training data has no samples to ask for"),
        (
            Unlabelled(),
            POINTS,
            "Unlabelled does not take this data by itself "
            "(Unlabelled.forward() got an unexpected keyword argument 'labels')",
        ),
    ],
)
def test_a_sharpness_that_cannot_be_measured_is_a_warning(make_trainer, caplog, model, data, reason):
    like = make_trainer(optim="sgd", remove_unused_columns=False, **LOGGED)
    kind = LossOfItsOwn if isinstance(model, Unlabelled) else Trainer
    trainer = kind(model=model, args=like.args, train_dataset=data)
    watch_warmup(trainer, sharpness=True)
    with caplog.at_level("WARNING", "hfwarmup.trainer.sharpness_probe"):
        trainer.train()
    said = [record.getMessage() for record in caplog.records if record.name.endswith("sharpness_probe")]
    assert said == [f"no sharpness is measured: {reason}"]
    assert trainer.state.global_step == 40


def test_measuring_the_sharpness_leaves_the_training_as_it_is(make_trainer):
    trainer = with_and_without(lambda: make_trainer(trainer={"model": dropping_llama()}, **LOGGED), sharpness=True)
    assert measured(trainer, "sharpness_ratio")


class Shift(torch.nn.Module):
    """A model of one vector."""

    def __init__(self):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(3))

    def forward(self, x, labels):
        return {"loss": (x + self.shift).square().mean()}


def test_a_model_without_matrices_is_measured_at_the_marks_alone(make_trainer):
    trainer = make_trainer(trainer={"model": Shift(), "train_dataset": POINTS}, **RUN, logging_steps=40)
    watch_warmup(trainer)
    trainer.train()
    assert list(measured(trainer, "relative_update")) == list(range(2, 41, 2))


def test_a_rank_that_began_at_zero_has_no_ratio(make_trainer, tiny_llama, tmp_path):
    model = tiny_llama()
    torch.nn.init.zeros_(model.model.norm.weight)
    model.model.norm.weight.requires_grad_(False)
    settings = {"output_dir": str(tmp_path), "save_strategy": "steps", "save_steps": 20, **LOGGED}
    for resumed in (None, str(tmp_path / "checkpoint-20")):
        trainer = make_trainer(trainer={"model": model}, **settings)
        watch_warmup(trainer)
        trainer.train(resume_from_checkpoint=resumed)
        assert measured(trainer, "effective_rank")[40] == 0.0
        assert math.isnan(measured(trainer, "effective_rank_ratio")[40])


class Noisy(torch.utils.data.Dataset):
    """Tokens drawn anew each time, as an augmentation draws, from Python's and from numpy's random state."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        tokens = torch.tensor([random.randrange(16), *np.random.randint(16, size=3)])
        return {"input_ids": tokens, "labels": tokens}


class Masking:
    """Drops tokens by a generator of its own."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(3)

    def __call__(self, samples):
        batch = default_data_collator(samples)
        dropped = torch.rand(batch["input_ids"].shape, generator=self.generator) < 0.3
        return batch | {"input_ids": batch["input_ids"].masked_fill(dropped, 0)}


def test_a_collator_that_draws_from_its_own_generator_draws_the_same(make_trainer):
    trainer = with_and_without(lambda: make_trainer(trainer={"data_collator": Masking()}, **LOGGED))
    assert measured(trainer, "effective_rank")


class Locked:
    """Cannot be copied."""

    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, samples):
        return default_data_collator(samples)


def test_a_collator_that_cannot_be_copied_serves_as_it_is(make_trainer):
    trainer = make_trainer(trainer={"data_collator": Locked()}, **LOGGED)
    watch_warmup(trainer)
    trainer.train()
    assert len(measured(trainer, "effective_rank")) == 20


def test_data_that_draw_give_what_they_would_have_given(make_trainer):
    trainer = with_and_without(lambda: make_trainer(trainer={"train_dataset": Noisy()}, **LOGGED))
    assert measured(trainer, "effective_rank")


def test_a_matrix_that_begins_at_zero_is_no_measure(make_trainer, tiny_llama):
    model = tiny_llama()
    torch.nn.init.zeros_(model.lm_head.weight)
    trainer = make_trainer(trainer={"model": model}, **LOGGED)
    watch_warmup(trainer)
    trainer.train()
    assert measured(trainer, "max_relative_update")[2] < 0.2  # its own first update would be without bound


def test_padding_is_no_row_of_the_rank(tiny_llama):
    batch = {"input_ids": torch.tensor([[1, 2, 3, 4]]), "attention_mask": torch.tensor([[1, 1, 0, 0]])}
    args = SimpleNamespace(device=torch.device("cpu"), bf16=False)
    assert last_hidden_state(tiny_llama(), batch, args).shape == (2, 32)


def test_it_warns_once_of_a_ramp_that_is_too_steep(make_trainer, caplog):
    trainer = make_trainer(**LOGGED | {"warmup_steps": 0, "learning_rate": 1.0})
    watch_warmup(trainer)
    with caplog.at_level("WARNING", "hfwarmup.trainer.monitor"):
        trainer.train()
    (message,) = [record.getMessage() for record in caplog.records if record.name.endswith("monitor")]
    assert message.startswith("warmup too steep: too short for a peak of 1, by 10% of the run")
