"""Every schedule by name: golden tables, boundaries, options, the science's numbers and the text of the errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hfwarmup import get_schedule
from hfwarmup.schedules.named import SCHEDULES, add_schedule, resolve_options, schedule_names, user_factory
from hfwarmup.schedules.options import ScheduleOptions

FAR = 10**9
NAN, INF = math.nan, math.inf

# Peak 1, T_w = 10 and T = 100 everywhere: a tenth of the warmup an update, a ninetieth of the decay.
GRADUAL = [
    (0, 1e-7),  # the start itself, not 0
    (1, 0.10000009),  # 1e-7 + (1 - 1e-7) / 10
    (5, 0.50000005),  # half way between 1e-7 and 1
    (9, 0.90000001),  # one update before the peak
    (10, 1.0),  # T_w: the peak
]
FLAT = [(11, 1.0), (99, 1.0), (100, 1.0), (101, 1.0), (FAR, 1.0)]  # constant after the peak, beyond T too
TABLES: dict[str, list[tuple[int, float]]] = {
    "gradual_warmup": GRADUAL + FLAT,
    "exponential_warmup": [
        (0, 1e-7),  # the start
        (1, 5.011872336272722e-07),  # 10^-6.3: seven decades over ten updates
        (5, 3.1622776601683795e-04),  # 10^-3.5, the geometric mean of the ends
        (9, 0.19952623149688797),  # 10^-0.7
        (10, 1.0),  # the peak
        *FLAT,
    ],
    "warmup_cosine": [
        *GRADUAL,
        (25, 0.9397114317029974),  # q = 1/6: 0.1 + 0.45 (1 + cos 30 degrees)
        (40, 0.775),  # q = 1/3: 0.1 + 0.45 (1 + 1/2)
        (55, 0.55),  # q = 1/2: the middle of 1 and 0.1
        (70, 0.325),  # q = 2/3: 0.1 + 0.45 (1 - 1/2)
        (100, 0.1),  # the floor, a tenth of the peak
        (101, 0.1),  # no climbing again
        (190, 0.1),  # where a bare cosine would be back at the peak
        (FAR, 0.1),
    ],
    "warmup_linear": [
        *GRADUAL,
        (19, 0.9),  # 81 of 90 updates are left
        (55, 0.5),  # half of them
        (99, 1 / 90),  # the last one
        (100, 0.0),  # nothing
        (101, 0.0),  # and not below
        (FAR, 0.0),
    ],
    "warmup_wsd": [
        *GRADUAL,
        (50, 1.0),  # stable
        (90, 1.0),  # the last stable update: 0.9 T
        (91, 0.9),  # one of ten updates down
        (95, 0.5),
        (99, 0.1),
        (100, 0.0),
        (FAR, 0.0),
    ],
    "constant_warmup": [
        (0, 0.1),  # a tenth of the peak
        (9, 0.1),  # until the last update of the warmup
        (10, 1.0),  # then the jump
        *FLAT,
    ],
    "saturating_warmup": [  # tau = T_w / 5 = 2 updates; 1 - e^-5 = 0.9932620530009145
        (0, 1e-7),
        (2, 0.6364086829179662),  # one tau: h = (1 - 1/e) / (1 - e^-5), and 1e-7 (1 - h) of the start
        (4, 0.870530316758537),  # two: (1 - e^-2) / (1 - e^-5)
        (8, 0.9883437702095834),  # four: (1 - e^-4) / (1 - e^-5)
        (10, 1.0),  # five: normalised to the peak
        *FLAT,
    ],
    "cosine_bell": [
        (0, 0.0),  # the only name besides the literal `linear` that starts at 0: its form
        (2, 0.09549150281252627),  # (1 - cos 36 degrees) / 2
        (5, 0.5),
        (8, 0.9045084971874737),  # (1 + cos 36 degrees) / 2
        (10, 1.0),
        (25, 0.9330127018922193),  # (1 + cos 30 degrees) / 2
        (55, 0.5),
        (85, 0.0669872981077807),  # (1 - cos 30 degrees) / 2
        (100, 0.0),
        (FAR, 0.0),
    ],
    "noam": [
        (0, 0.1),  # s = 1: it counts from 1
        (4, 0.5),  # s = 5
        (9, 1.0),  # s = 10 = T_w: the peak, one update before everybody else's
        (10, 0.9534625892455924),  # sqrt(10 / 11)
        (39, 0.5),  # sqrt(10 / 40)
        (89, 1 / 3),  # sqrt(10 / 90)
        (99, 0.31622776601683794),  # sqrt(10 / 100): s = T
        (100, 0.31622776601683794),  # held from there
        (FAR, 0.31622776601683794),
    ],
    "warmup_plateau": GRADUAL + FLAT,  # as if the metric never stalled
    "warmup_restarts": [  # two cycles of 45 updates
        *GRADUAL,
        (25, 0.75),  # a third of the cycle: (1 + cos 60 degrees) / 2
        (40, 0.25),  # two thirds
        (55, 1.0),  # the restart
        (70, 0.75),
        (85, 0.25),
        (100, 0.0),  # the end, not a third start
        (FAR, 0.0),
    ],
    "untuned_linear": [  # beta2 = 0.9: a twentieth an update, counted from 1
        (0, 0.05),
        (9, 0.5),
        (18, 0.95),
        (19, 1.0),  # s = 2 / (1 - beta2) = 20
        *FLAT[1:],
    ],
    "untuned_exponential": [
        (0, 0.09516258196404048),  # 1 - e^-0.1
        (9, 0.6321205588285577),  # 1 - 1/e
        (19, 0.8646647167633873),  # 1 - e^-2, where the linear one has arrived
        (20, 0.8775435717470181),  # 1 - e^-2.1: it goes on
        (99, 0.9999546000702375),  # 1 - e^-10
        (FAR, 0.9999546000702375),  # held from T on
    ],
    "radam_warmup": [  # rho_inf = 19; r from t = 5, the first with rho > 4
        (0, 0.15611076327512505),  # rho = 4.580572, t = 5
        (1, 0.2551768065466866),  # rho = 5.389565, t = 6
        (9, 0.6368046358746222),  # rho = 10.694456, t = 14
        (26, 0.9063255636197222),  # rho = 16.540748, t = 31
    ],
    "gi_warmup": [
        (0, 0.31622776601683794),  # sqrt(1 - 0.9)
        (1, 0.4358898943540674),  # sqrt(1 - 0.81)
        (2, 0.5205766033928148),  # sqrt(1 - 0.729)
        (9, 0.8070449553153777),  # sqrt(1 - 0.3486784401)
    ],
    "hfwarmup": GRADUAL + FLAT,  # gradual and constant unless told otherwise
}
BETA2_NAMES = ("untuned_linear", "untuned_exponential", "radam_warmup", "gi_warmup")
ZERO_BASED = [name for name in TABLES if name not in (*BETA2_NAMES, "noam")]


def schedule_of(
    name: str, *, peak: float = 1.0, warmup_steps: int | None = 10, total_steps: int | None = 100, **options
):
    if name in BETA2_NAMES:
        warmup_steps, options = None, {"beta2": 0.9, **options}
    return get_schedule(name, peak_lr=peak, num_warmup_steps=warmup_steps, num_training_steps=total_steps, **options)


def test_there_is_a_table_for_every_name():
    assert list(TABLES) == list(SCHEDULES)
    assert len(SCHEDULES) == 16


@pytest.mark.parametrize("name", TABLES)
def test_golden_table(name):
    schedule = schedule_of(name)
    for step, expected in TABLES[name]:
        assert schedule(step) == pytest.approx(expected, rel=1e-12, abs=1e-16), f"update {step}"


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("peak", [3e-4, 7.0])
def test_the_table_scales_with_the_peak(name, peak):
    start = {} if name in (*BETA2_NAMES, "noam") else {"initial_ratio": 0.01}
    unit, scaled = schedule_of(name, **start), schedule_of(name, peak=peak, **start)
    for step in range(0, 110, 7):
        assert scaled(step) == pytest.approx(peak * unit(step), rel=1e-13)


@pytest.mark.parametrize("name", ZERO_BASED)
@pytest.mark.parametrize("peak", [1e-6, 2e-5, 3e-4, 0.1, 0.7])
def test_start_and_peak_are_exact(name, peak):
    start = 0.0 if name == "cosine_bell" else 0.1 * peak if name == "constant_warmup" else 1e-7
    schedule = schedule_of(name, peak=peak)
    assert schedule(0) == start
    assert schedule(10) == peak


@pytest.mark.parametrize("name", TABLES)
def test_the_value_stays_from_the_end_on(name):
    schedule = schedule_of(name)
    assert {schedule(step) for step in (100, 101, 1000, FAR, 10**18)} == {schedule(100)}


@pytest.mark.parametrize("name", ZERO_BASED)
def test_without_warmup_the_first_update_is_at_the_peak(name):
    assert schedule_of(name, warmup_steps=0)(0) == 1.0


@pytest.mark.parametrize("name", ZERO_BASED)
def test_a_warmup_as_long_as_the_run_ends_at_the_peak(name):
    stable = {"stable_ratio": 1.0} if name == "warmup_wsd" else {}
    schedule = schedule_of(name, warmup_steps=100, **stable)
    assert schedule(99) < schedule(100) == schedule(FAR) == 1.0


@pytest.mark.parametrize("name", ["gradual_warmup", "constant_warmup", "warmup_plateau", "noam", *BETA2_NAMES])
def test_a_decay_without_an_end_needs_no_total_steps(name):
    endless, long = schedule_of(name, total_steps=None), schedule_of(name, total_steps=10**6)
    assert [endless(step) for step in range(0, 300, 11)] == [long(step) for step in range(0, 300, 11)]


def test_a_peak_below_the_default_start_begins_at_the_peak():
    assert schedule_of("gradual_warmup", peak=1e-8)(0) == 1e-8


def test_a_peak_of_zero_stays_at_zero():
    for name in TABLES:
        assert {schedule_of(name, peak=0.0)(step) for step in (0, 5, 10, 50, 100)} == {0.0}


OPTIONS = [
    # (name, options, update, learning rate at peak 1, T_w = 10, T = 100)
    ("gradual_warmup", {"initial_lr": 0.0}, 0, 0.0),  # 0 is allowed when asked for
    ("gradual_warmup", {"initial_lr": 0.2}, 5, 0.6),  # half way from 0.2 to 1
    ("gradual_warmup", {"initial_ratio": 0.4}, 5, 0.7),  # half way from 0.4 to 1
    ("gradual_warmup", {"warmup_shape": "linear"}, 0, 0.0),  # linear is t / T_w and starts at 0
    ("gradual_warmup", {"warmup_shape": "linear", "initial_lr": 0.5}, 0, 0.5),  # unless it is told a start
    ("gradual_warmup", {"warmup_shape": "cosine"}, 5, 0.50000005),  # from 1e-7 like gradual
    ("gradual_warmup", {"decay": "linear"}, 55, 0.5),  # a name is only defaults
    ("exponential_warmup", {"initial_lr": 0.01}, 5, 0.1),  # sqrt(0.01)
    ("exponential_warmup", {"initial_ratio": 1e-4}, 5, 0.01),  # sqrt(1e-4)
    ("constant_warmup", {"initial_lr": 0.3}, 9, 0.3),  # replaces the name's initial_ratio
    ("warmup_cosine", {"final_lr": 0.2}, 55, 0.6),  # replaces the name's final_ratio
    ("warmup_cosine", {"final_lr": 0.0}, 100, 0.0),
    ("warmup_cosine", {"final_ratio": 0.5}, 55, 0.75),
    ("warmup_linear", {"final_ratio": 0.2}, 55, 0.6),  # half way from 1 to 0.2
    ("hfwarmup", {"warmup_shape": "polynomial", "initial_lr": 0.0}, 5, 0.25),  # (1/2)^2: power 2 unless given
    ("hfwarmup", {"warmup_shape": "polynomial", "power": 3, "initial_ratio": 0.2}, 5, 0.3),  # 0.2 + 0.8 / 8
    ("hfwarmup", {"decay": "polynomial"}, 55, 0.25),  # (1 - 1/2)^2
    ("hfwarmup", {"decay": "polynomial", "power": 1, "final_lr": 0.5}, 55, 0.75),  # power 1 is linear
    ("saturating_warmup", {"tau": 10.0, "initial_lr": 0.0}, 5, 0.6224593312018546),  # (1-e^-.5)/(1-e^-1)
    ("saturating_warmup", {"tau": 1e6, "initial_lr": 0.0}, 5, 0.50000125),  # slow lag: nearly a line, + p(1-p)/2c
    ("noam", {"d_model": 512}, 9, 0.013975424859373686),  # (512 * 10)^-0.5 at s = T_w, whatever the peak
    ("noam", {"d_model": 512}, 0, 0.0013975424859373686),  # a tenth of it
    ("noam", {"final_ratio": 0.4}, 89, 0.4),  # the floor is above sqrt(1/9)
    ("noam", {"final_ratio": 0.3}, 89, 1 / 3),  # and below it does nothing
    ("noam", {"decay": "constant"}, 50, 1.0),
    ("warmup_restarts", {"num_cycles": 1}, 55, 0.5),  # one cycle is the cosine
    ("warmup_restarts", {"num_cycles": 3}, 40, 1.0),  # cycles of 30: the second begins
    ("warmup_restarts", {"num_cycles": 3}, 70, 1.0),  # and the third
    ("warmup_restarts", {"final_ratio": 0.2}, 40, 0.4),  # 0.2 + 0.8 / 4
    ("warmup_wsd", {"stable_ratio": 0.5}, 75, 0.5),  # cools down over the second half
    ("warmup_wsd", {"stable_ratio": 1.0}, 100, 1.0),  # never cools down
    ("warmup_wsd", {"stable_ratio": 0.1}, 55, 0.5),  # no stable phase at all: linear decay
    ("warmup_wsd", {"cooldown_shape": "linear"}, 92, 0.8),
    ("warmup_wsd", {"cooldown_shape": "cosine"}, 92, 0.9045084971874737),  # (1 + cos 36 degrees) / 2
    ("warmup_wsd", {"cooldown_shape": "1-sqrt"}, 92, 0.5527864045000421),  # 1 - sqrt(0.2)
    ("warmup_wsd", {"final_ratio": 0.5}, 95, 0.75),
    ("hfwarmup", {"decay": "exponential", "final_ratio": 0.01}, 55, 0.1),  # the geometric mean
    ("hfwarmup", {"decay": "exponential", "final_lr": 1e-4}, 100, 1e-4),
    ("hfwarmup", {"decay": "inverse_sqrt"}, 40, 0.5),  # sqrt(10 / (10 + 30))
    ("hfwarmup", {"decay": "step", "step_size": 20}, 29, 1.0),  # 19 updates after the peak
    ("hfwarmup", {"decay": "step", "step_size": 20}, 30, 0.1),  # 20: gamma = 0.1 once
    ("hfwarmup", {"decay": "step", "step_size": 20, "gamma": 0.5}, 70, 0.125),  # 60: three times
    ("hfwarmup", {"decay": "step", "step_size": 20, "gamma": 0.5, "final_ratio": 0.3}, 70, 0.3),  # the floor
    ("untuned_linear", {"beta2": 0.95}, 19, 0.5),  # a fortieth an update
    ("gi_warmup", {"beta2": 0.96}, 0, 0.2),  # sqrt(1 - 0.96)
    ("untuned_linear", {"decay": "linear"}, 60, 0.5),  # the decay itself counts from 0: half way from 20 to 100
]


@pytest.mark.parametrize(("name", "options", "step", "expected"), OPTIONS)
def test_option(name, options, step, expected):
    assert schedule_of(name, **options)(step) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "chosen",
    [
        {"metric": "eval_accuracy"},
        {"mode": "max"},
        {"factor": 0.5},
        {"patience": 3},
        {"threshold": 0.01},
        {"cooldown": 2},
        {"min_lr": 1e-5},
        {"weight_decay": "independent"},
        {"weight_decay": "proportional"},
    ],
)
def test_plateau_and_weight_decay_options_are_kept_and_leave_the_curve_alone(chosen):
    (option,) = chosen
    assert getattr(resolve_options("warmup_plateau", chosen), option) == chosen[option]
    plain, other = schedule_of("warmup_plateau"), schedule_of("warmup_plateau", **chosen)
    assert [plain(step) for step in range(120)] == [other(step) for step in range(120)]


def test_every_option_of_the_config_is_in_a_table_here():
    tried = {option for _, options, _, _ in OPTIONS for option in options}
    plateau = {"metric", "mode", "factor", "patience", "threshold", "cooldown", "min_lr"}
    assert tried | plateau | {"weight_decay"} == set(ScheduleOptions.__dataclass_fields__)


@pytest.mark.parametrize(("d_model", "warmup_steps"), [(512, 4000), (1024, 4000), (64, 7)])
def test_noam_with_d_model_is_vaswani_eq_3(d_model, warmup_steps):
    noam = get_schedule("noam", peak_lr=123.0, num_warmup_steps=warmup_steps, num_training_steps=None, d_model=d_model)
    for step_num in (1, 2, warmup_steps // 2, warmup_steps, warmup_steps + 1, 10 * warmup_steps, FAR):
        eq3 = d_model**-0.5 * min(step_num**-0.5, step_num * warmup_steps**-1.5)
        assert noam(step_num - 1) == pytest.approx(eq3, rel=1e-12)


# beta2, T(untuned exponential), T(RAdam), T(GI) with T(w) = sum of 1 - w_s over s = 1, 2, … (Ma & Yarats section 5)
EFFECTIVE_PERIODS = [
    (0.9, 9.5, 9.9, 5.4),
    (0.95, 19.5, 20.3, 11.5),
    (0.98, 49.5, 51.3, 29.9),
    (0.99, 99.5, 102.9, 60.6),
    (0.999, 999.5, 1029.3, 612.9),
]


@pytest.mark.parametrize(("beta2", "exponential", "radam", "gi"), EFFECTIVE_PERIODS)
def test_effective_warmup_periods(beta2, exponential, radam, gi):
    def period(name):
        schedule = schedule_of(name, total_steps=None, beta2=beta2)
        return math.fsum(1.0 - schedule(step) for step in range(int(40 / (1 - beta2))))

    assert round(period("untuned_linear"), 1) == exponential  # T_w of the linear one was chosen to match
    assert round(period("untuned_exponential"), 1) == exponential
    assert round(period("radam_warmup"), 1) == radam
    assert round(period("gi_warmup"), 1) == gi


@pytest.mark.parametrize(
    ("name", "beta2", "first", "update_at_90_percent"),
    [
        ("gi_warmup", 0.9, 0.316, 16),
        ("gi_warmup", 0.95, 0.224, 33),
        ("gi_warmup", 0.98, 0.141, 83),
        ("gi_warmup", 0.99, 0.100, 166),
        ("gi_warmup", 0.999, 0.032, 1660),
        ("radam_warmup", 0.9, 0.156, 27),
        ("radam_warmup", 0.95, 0.118, 54),
        ("radam_warmup", 0.98, 0.077, 136),
        ("radam_warmup", 0.99, 0.054, 273),  # 0.05447 in 40 digits
        ("radam_warmup", 0.999, 0.017, 2733),
    ],
)
def test_first_height_and_the_update_that_reaches_90_percent(name, beta2, first, update_at_90_percent):
    schedule = schedule_of(name, total_steps=None, beta2=beta2)
    assert round(schedule(0), 3) == first
    assert schedule(update_at_90_percent - 2) < 0.9 <= schedule(update_at_90_percent - 1)  # counted from 1


@pytest.mark.parametrize("beta2", [0.7, 0.9, 0.95, 0.98, 0.99, 0.999, 0.9999])
def test_radam_equals_pytorch_warmup_to_the_last_bit(beta2):
    pytorch_warmup = pytest.importorskip("pytorch_warmup")
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], betas=(0.9, beta2))
    peer = pytorch_warmup.RAdamWarmup(optimizer)
    schedule = schedule_of("radam_warmup", total_steps=None, beta2=beta2)
    length = int(2 / (1 - beta2))
    for step in {*range(50), length - 2, length - 1, length, length + 1, 2 * length, 10 * length}:
        assert schedule(step) == peer.warmup_factor(step, **peer.warmup_params[0])


COSINE_TAKES = "It takes decay, final_lr, final_ratio, initial_lr, initial_ratio, warmup_shape, weight_decay."
WARMUPS = (
    "linear, gradual, exponential, cosine, polynomial, saturating, constant, noam, untuned_linear, "
    "untuned_exponential, radam, gi"
)
DECAYS = "constant, linear, cosine, polynomial, exponential, inverse_sqrt, step, wsd, restarts, plateau"
ERRORS = [
    # unknown names, with the nearest one
    ("warmup_cosin", {}, f"unknown schedule 'warmup_cosin'; did you mean 'warmup_cosine'? Choose one of "
                         f"{', '.join(TABLES)}."),
    ("warmup_cosine", {"final_ration": 0.1},
     f"'warmup_cosine' has no option 'final_ration'; did you mean 'final_ratio'? {COSINE_TAKES}"),
    ("warmup_cosine", {"min_lr": 0.1},
     f"'warmup_cosine' does not read 'min_lr' with warmup_shape='gradual' and decay='cosine'. {COSINE_TAKES}"),
    ("warmup_cosine", {"beta2": 0.9},
     f"'warmup_cosine' does not read 'beta2' with warmup_shape='gradual' and decay='cosine'. {COSINE_TAKES}"),
    ("hfwarmup", {"warmup": "cosine"},  # `warmup` is a duration everywhere, the shape has its own option
     "'hfwarmup' has no option 'warmup'; did you mean 'warmup_shape'? "
     "It takes decay, initial_lr, initial_ratio, warmup_shape, weight_decay."),
    ("hfwarmup", {"warmup_shape": "gradul"},
     f"warmup_shape='gradul'; did you mean 'gradual'? Choose one of {WARMUPS}."),
    ("hfwarmup", {"decay": "cosin"}, f"decay='cosin'; did you mean 'cosine'? Choose one of {DECAYS}."),
    ("warmup_wsd", {"cooldown_shape": "sqrt"},
     "cooldown_shape='sqrt'; did you mean '1-sqrt'? Choose one of linear, cosine, 1-sqrt."),
    ("warmup_plateau", {"mode": "mn"}, "mode='mn'; did you mean 'min'? Choose one of min, max."),
    ("gradual_warmup", {"weight_decay": 0.1},
     "weight_decay=0.1. Choose one of coupled, independent, proportional, constant."),
    # contradictions
    ("gradual_warmup", {"initial_lr": 0.1, "initial_ratio": 0.1},
     "initial_lr=0.1 and initial_ratio=0.1 set the same value; give one of them."),
    ("warmup_cosine", {"final_lr": 0.1, "final_ratio": 0.1},
     "final_lr=0.1 and final_ratio=0.1 set the same value; give one of them."),
    ("hfwarmup", {"warmup_shape": "noam", "decay": "cosine", "d_model": 512},
     "d_model=512 with decay='cosine': Vaswani's rate needs decay='inverse_sqrt'."),
    ("untuned_linear", {"warmup_steps": 5},
     "num_warmup_steps=5: warmup_shape='untuned_linear' takes its length from beta2; "
     "leave num_warmup_steps (warmup_steps) at 0."),
    ("gi_warmup", {"warmup_steps": 5},
     "num_warmup_steps=5: warmup_shape='gi' takes its length from beta2; "
     "leave num_warmup_steps (warmup_steps) at 0."),
    # impossible levels
    ("exponential_warmup", {"initial_lr": 0.0},
     "warmup_shape='exponential' cannot start from 0; set initial_lr above 0, for example 1e-7."),
    ("exponential_warmup", {"initial_ratio": 0},
     "warmup_shape='exponential' cannot start from 0; set initial_lr above 0, for example 1e-7."),
    ("hfwarmup", {"decay": "exponential"}, "decay='exponential' never reaches 0; set final_lr or final_ratio above 0."),
    ("gradual_warmup", {"initial_lr": 1.5},
     "initial_lr=1.5 is above the peak learning rate 1.0; lower it, or give initial_ratio."),
    ("warmup_cosine", {"final_lr": 1.5},
     "final_lr=1.5 is above the peak learning rate 1.0; lower it, or give final_ratio."),
    # impossible numbers
    ("gradual_warmup", {"initial_lr": -1e-7}, "initial_lr=-1e-07: give a number, 0 or more."),
    ("gradual_warmup", {"initial_lr": NAN}, "initial_lr=nan: give a number, 0 or more."),
    ("gradual_warmup", {"initial_lr": INF}, "initial_lr=inf: give a number, 0 or more."),
    ("gradual_warmup", {"initial_lr": True}, "initial_lr=True: give a number, 0 or more."),
    ("gradual_warmup", {"initial_lr": "1e-7"}, "initial_lr='1e-7': give a number, 0 or more."),
    ("gradual_warmup", {"initial_ratio": 1.5}, "initial_ratio=1.5: give a number from 0 to 1."),
    ("warmup_cosine", {"final_ratio": -0.1}, "final_ratio=-0.1: give a number from 0 to 1."),
    ("warmup_cosine", {"final_ratio": NAN}, "final_ratio=nan: give a number from 0 to 1."),
    ("saturating_warmup", {"tau": 0}, "tau=0: give a number above 0."),
    ("hfwarmup", {"warmup_shape": "polynomial", "power": -1}, "power=-1: give a number above 0."),
    ("warmup_restarts", {"num_cycles": 0}, "num_cycles=0: give a whole number, 1 or more."),
    ("warmup_restarts", {"num_cycles": 1.5}, "num_cycles=1.5: give a whole number, 1 or more."),
    ("warmup_restarts", {"num_cycles": True}, "num_cycles=True: give a whole number, 1 or more."),
    ("noam", {"d_model": 0}, "d_model=0: give a whole number, 1 or more."),
    ("warmup_wsd", {"stable_ratio": 1.1}, "stable_ratio=1.1: give a number from 0 to 1."),
    ("hfwarmup", {"decay": "step", "step_size": 0}, "step_size=0: give a whole number, 1 or more."),
    ("hfwarmup", {"decay": "step", "step_size": 5, "gamma": 2}, "gamma=2: give a number from 0 to 1."),
    ("warmup_plateau", {"factor": 1.0}, "factor=1.0: give a number from 0 to below 1."),
    ("warmup_plateau", {"patience": -1}, "patience=-1: give a whole number, 0 or more."),
    ("warmup_plateau", {"threshold": NAN}, "threshold=nan: give a number, 0 or more."),
    ("warmup_plateau", {"min_lr": -1}, "min_lr=-1: give a number, 0 or more."),
    ("radam_warmup", {"beta2": 1.0}, "beta2=1.0: give a number between 0 and 1."),
    ("radam_warmup", {"beta2": 0.6}, "beta2=0.6: RAdam's rectification needs beta2 above 0.6; use 'untuned_linear'."),
    # impossible lengths
    ("gradual_warmup", {"warmup_steps": 101},
     "num_warmup_steps=101 > num_training_steps=100: the peak is never reached; "
     "lower num_warmup_steps (warmup_steps) or raise num_training_steps (max_steps)."),
    ("gradual_warmup", {"warmup_steps": -1}, "num_warmup_steps=-1: give a whole number of updates, 0 or more."),
    ("gradual_warmup", {"warmup_steps": 1.5}, "num_warmup_steps=1.5: give a whole number of updates, 0 or more."),
    ("gradual_warmup", {"warmup_steps": True}, "num_warmup_steps=True: give a whole number of updates, 0 or more."),
    ("gradual_warmup", {"warmup_steps": NAN}, "num_warmup_steps=nan: give a whole number of updates, 0 or more."),
    ("gradual_warmup", {"warmup_steps": INF}, "num_warmup_steps=inf: give a whole number of updates, 0 or more."),
    ("gradual_warmup", {"warmup_steps": "10"}, "num_warmup_steps=10: give a whole number of updates, 0 or more."),
    ("gradual_warmup", {"warmup_steps": "ten"}, "num_warmup_steps=ten: give a whole number of updates, 0 or more."),
    ("gradual_warmup", {"warmup_steps": None},
     "warmup_shape='gradual' needs num_warmup_steps: the number of updates to the peak."),
    ("gradual_warmup", {"total_steps": NAN}, "num_training_steps=nan: give a whole number of updates, 0 or more."),
    ("gradual_warmup", {"total_steps": INF}, "num_training_steps=inf: give a whole number of updates, 0 or more."),
    ("gradual_warmup", {"total_steps": -5}, "num_training_steps=-5: give a whole number of updates, 0 or more."),
    ("warmup_cosine", {"total_steps": None},
     "decay='cosine' needs num_training_steps: the number of updates of the run."),
    ("noam", {"warmup_steps": 0},
     "num_warmup_steps=0: noam's rate is defined by its warmup; set num_warmup_steps to 1 or more."),
    ("untuned_linear", {"warmup_steps": None},
     "warmup_shape='untuned_linear' needs beta2: the second beta of Adam, for example 0.999."),
    ("untuned_linear", {"warmup_steps": 0, "beta2": 0.99},
     "warmup_shape='untuned_linear' takes 2 / (1 - beta2) = 200 updates at beta2=0.99, more than "
     "num_training_steps=100; lower beta2, raise num_training_steps (max_steps), or choose a shape that "
     "takes num_warmup_steps."),
    ("warmup_wsd", {"stable_ratio": 0.05},
     "stable_ratio=0.05 ends the stable phase at update 5, before num_warmup_steps=10; "
     "raise stable_ratio or lower num_warmup_steps (warmup_steps)."),
    ("hfwarmup", {"decay": "step"}, "decay='step' needs step_size: the updates between two steps."),
    # impossible peaks
    ("gradual_warmup", {"peak": -1.0}, "peak_lr=-1.0: give a finite learning rate, 0 or more."),
    ("gradual_warmup", {"peak": NAN}, "peak_lr=nan: give a finite learning rate, 0 or more."),
    ("gradual_warmup", {"peak": INF}, "peak_lr=inf: give a finite learning rate, 0 or more."),
    ("gradual_warmup", {"peak": True}, "peak_lr=True: give a finite learning rate, 0 or more."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "message"), ERRORS)
def test_error_text(name, options, message):
    options = dict(options)
    lengths = {
        "peak_lr": options.pop("peak", 1.0),
        "num_warmup_steps": options.pop("warmup_steps", 10),
        "num_training_steps": options.pop("total_steps", 100),
    }
    with pytest.raises(ValueError) as error:  # noqa: PT011  the whole text is compared
        get_schedule(name, **lengths, **options)
    assert str(error.value) == message


def test_updates_are_counted_from_zero():
    with pytest.raises(ValueError, match=r"^step=-1: updates are counted from 0\.$"):
        schedule_of("gradual_warmup")(-1)


LAST_UPDATES = [
    # (warmup, options, T_w, the learning rate of the last update, 39 of 40): one decay step above the floor
    ("untuned_linear", {"decay": "linear", "beta2": 0.9}, None, 0.05),  # 1 / (40 - 20)
    ("noam", {"decay": "linear"}, 4, 1 / 36),
    ("noam", {"decay": "restarts"}, 4, 0.0075961234938959784),  # (1 + cos(pi 34 / 36)) / 2: two cycles of 18
    ("untuned_linear", {"decay": "wsd", "beta2": 0.9}, None, 0.25),  # the cooldown takes 4 updates
]


@pytest.mark.parametrize(("warmup", "options", "warmup_steps", "last"), LAST_UPDATES)
def test_the_last_update_of_a_warmup_counted_from_one_is_not_wasted(warmup, options, warmup_steps, last):
    schedule = schedule_of("hfwarmup", warmup_steps=warmup_steps, total_steps=40, warmup_shape=warmup, **options)
    assert schedule(39) == pytest.approx(last, rel=1e-12)
    assert schedule(40) == schedule(FAR) == 0.0


def test_lengths_may_be_numbers_of_numpy():
    assert schedule_of("warmup_linear", warmup_steps=np.int64(10), total_steps=np.int64(100))(55) == 0.5


def test_a_default_of_the_name_gives_way_to_what_is_given():
    """cosine_bell starts at 0 unless told otherwise, an exponential warmup cannot: the default goes."""
    assert schedule_of("cosine_bell", warmup_shape="exponential")(0) == 1e-7


@pytest.mark.parametrize("total_steps", range(1, 13))
def test_wsd_cools_down_in_the_shortest_run(total_steps):
    schedule = schedule_of("warmup_wsd", warmup_steps=0, total_steps=total_steps)
    assert schedule(0) == 1.0
    assert schedule(total_steps) == 0.0


def test_an_option_that_only_its_own_shape_reads_is_refused_beside_another():
    with pytest.raises(ValueError, match="'saturating_warmup' does not read 'tau' with warmup_shape='gradual'"):
        schedule_of("saturating_warmup", warmup_shape="gradual", tau=3)


def test_a_users_own_schedule_is_known_by_its_name():
    def factory(*, peak_lr, num_warmup_steps, num_training_steps, slope):
        return lambda step: peak_lr * slope * step / (num_warmup_steps + num_training_steps)

    add_schedule("test_named_own", factory)
    add_schedule("test_named_own", factory)  # again is fine
    assert user_factory("test_named_own") is factory
    assert schedule_names()[-1] == "test_named_own"
    own = get_schedule("test_named_own", peak_lr=2.0, num_warmup_steps=1, num_training_steps=3, slope=0.5)
    assert own(2) == 0.5  # 2 * 0.5 * 2 / 4
    with pytest.raises(ValueError, match=r"^schedule 'test_named_own' exists already; choose another name\.$"):
        add_schedule("test_named_own", lambda **_: None)
    with pytest.raises(ValueError, match=r"^schedule 'noam' exists already; choose another name\.$"):
        add_schedule("noam", factory)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_name_says_its_formula_and_source(name):
    assert SCHEDULES[name].formula
    assert SCHEDULES[name].source
