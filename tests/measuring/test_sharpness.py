"""Eigenvalues that are known, products both ways, and measuring without a trace."""

from __future__ import annotations

import copy
import math
from unittest.mock import Mock

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.optim import Adam

from hfwarmup.measuring.products import HessianProduct, flatten, gradient
from hfwarmup.measuring.sharpness import directional_sharpness, lanczos, sharpness
from hfwarmup.measuring.thresholds import adam_preconditioner


def symmetric(spectrum: torch.Tensor) -> torch.Tensor:
    """A random matrix with these eigenvalues."""
    generator = torch.Generator().manual_seed(0)
    turned, _ = torch.linalg.qr(torch.randn(len(spectrum), len(spectrum), generator=generator, dtype=torch.float64))
    return turned @ torch.diag(spectrum.double()) @ turned.T


SPECTRA = {
    # what a Hessian looks like -> its eigenvalues
    "outliers above a bulk": torch.cat([torch.linspace(0, 1, 195), torch.tensor([5.0, 6.0, 7.0, 8.0, 10.0])]),
    "a flat top": torch.linspace(-3, 10, 200),
    "a power law": 10 * torch.arange(1, 201) ** -1.5,
    "mostly negative": torch.cat([torch.linspace(-20, 0, 199), torch.tensor([10.0])]),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_the_largest_eigenvalue_of_a_known_spectrum(name):
    matrix = symmetric(SPECTRA[name])
    start = torch.randn(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    value, vector, _ = lanczos(matrix.mv, start)
    assert value == pytest.approx(10.0, rel=1e-3)
    assert (matrix @ vector - 10 * vector).norm() < 1.0


def test_a_warm_start_saves_products():
    matrix = symmetric(SPECTRA["outliers above a bulk"])
    start = torch.randn(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    counts = []
    for moved in (matrix, matrix + 0.01 * symmetric(SPECTRA["a flat top"])):
        product = Mock(side_effect=moved.mv)
        _, start, _ = lanczos(product, start)
        counts.append(product.call_count)
    assert counts[1] <= 4 < counts[0]


def test_a_start_that_hardly_holds_the_top_eigenvector_finds_it():
    """At the first value that seems settled only the second eigenvalue has shown."""
    spectrum = torch.cat([torch.linspace(0, 1, 198), torch.tensor([8.5, 10.0])]).double()
    start = torch.ones(200, dtype=torch.float64)
    start[-1] = 0.05
    values = [lanczos(spectrum.mul, start, in_a_row=in_a_row)[0] for in_a_row in (1, 3)]
    assert values == pytest.approx([8.5, 10.0], rel=1e-3)


def test_the_most_products_are_kept_and_the_error_says_so():
    matrix = symmetric(SPECTRA["a flat top"])
    value, _, error = lanczos(matrix.mv, torch.ones(200, dtype=torch.float64), max_products=4)
    assert value < 10.0
    assert error > 1e-3


def quadratic(*curvatures: float):
    weight = nn.Parameter(torch.linspace(1, 2, len(curvatures)))
    return (lambda: (torch.tensor(curvatures) * weight**2).sum() / 2), [weight]


@pytest.mark.parametrize("method", ["double backward", "finite differences"])
def test_the_sharpness_of_a_diagonal_quadratic(method):
    loss, parameters = quadratic(1.0, 2.0, 7.0)
    found = sharpness(loss, parameters, tolerance=1e-5, method=method)
    assert found.value == pytest.approx(7.0, rel=1e-4)
    assert (found.method, found.products) == (method, 3)


def test_the_preconditioner_divides():
    loss, parameters = quadratic(1.0, 2.0, 7.0)
    found = sharpness(loss, parameters, preconditioner=[torch.tensor([0.1, 1.0, 2.0])], tolerance=1e-5)
    assert found.value == pytest.approx(10.0, rel=1e-4)


def test_the_directional_sharpness_along_one_axis():
    loss, parameters = quadratic(1.0, 2.0, 7.0)
    assert directional_sharpness(loss, parameters, [torch.tensor([0.0, 2.5, 0.0])]) == pytest.approx(
        1.0 * 2.5 / parameters[0][1].item(), rel=1e-5
    )
    along_the_gradient = directional_sharpness(loss, parameters, gradient(loss, parameters))
    assert 1.0 < along_the_gradient < 7.0


class Attention(nn.Module):
    """One block of attention over three classes, small enough for a full Hessian."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 24)
        self.head = nn.Linear(8, 3)
        self.norm = nn.BatchNorm1d(3)
        self.dropout = nn.Dropout(0.1)

    def forward(self, inputs: torch.Tensor, fused: bool) -> torch.Tensor:
        query, key, value = self.project(inputs).view(4, 6, 1, 24).transpose(1, 2).chunk(3, dim=-1)
        if fused:
            mixed = scaled_dot_product_attention(query, key, value)
        else:
            mixed = torch.softmax(query @ key.transpose(-1, -2) / math.sqrt(8), -1) @ value
        return self.norm(self.head(mixed.squeeze(1).mean(1)))


@pytest.fixture
def attention():
    """A model and its loss with fused or plain attention."""
    torch.manual_seed(0)
    model = Attention().eval()
    inputs, targets = torch.randn(4, 6, 8), torch.tensor([0, 1, 2, 1])
    return model, lambda fused: lambda: cross_entropy(model(inputs, fused), targets)


def test_double_backward_equals_finite_differences(attention):
    model, loss = attention
    parameters = list(model.parameters())
    vector = torch.randn(flatten(parameters).numel(), generator=torch.Generator().manual_seed(0))
    exact = HessianProduct(loss(False), parameters, method="double backward")(vector)
    differences = HessianProduct(loss(False), parameters, method="finite differences")(vector)
    assert (exact - differences).norm() < 1e-3 * exact.norm()


def test_the_method_follows_the_attention_kernel(attention):
    model, loss = attention
    plain, fused = (sharpness(loss(flag), list(model.parameters())) for flag in (False, True))
    assert (plain.method, fused.method) == ("double backward", "finite differences")
    assert fused.value == pytest.approx(plain.value, rel=2e-3)


def test_the_whole_hessian_agrees(attention):
    model, loss = attention
    parameters = list(model.parameters())
    product = HessianProduct(loss(False), parameters)
    columns = torch.stack([product(column) for column in torch.eye(flatten(parameters).numel())])
    largest = torch.linalg.eigvalsh(columns.double())[-1].item()
    assert sharpness(loss(False), parameters).value == pytest.approx(largest, rel=1e-3)


@pytest.mark.parametrize("method", ["double backward", "finite differences"])
def test_measuring_leaves_everything_as_it_was(attention, method):
    model, loss = attention
    optimizer = Adam(model.parameters())
    loss(False)().backward()
    optimizer.step()

    def everything():
        gradients = [parameter.grad for parameter in model.parameters()]
        return [model.state_dict(), gradients, optimizer.state_dict(), torch.get_rng_state()]

    before = copy.deepcopy(everything())
    parameters = list(model.parameters())
    found = gradient(loss(False), parameters)
    sharpness(loss(False), parameters, preconditioner=adam_preconditioner(optimizer, found), method=method)
    directional_sharpness(loss(False), parameters, found, method=method)
    torch.testing.assert_close(everything(), before, rtol=0, atol=0)


@pytest.mark.parametrize("scale", [1e-3, 1e-1, 10.0])
def test_differences_follow_a_gradient_that_turns_within_a_small_step(scale):
    """Curvature 30 at the weight, and gone a step of `scale` away."""
    weight = nn.Parameter(torch.zeros(2))

    def loss():
        return weight.sum() + 30 * scale**2 * (1 - torch.cos(weight[0] / scale))

    product = HessianProduct(loss, [weight], method="finite differences")
    for _ in range(3):
        assert product(torch.tensor([1.0, 0.0])).tolist() == pytest.approx([30.0, 0.0], rel=1e-2, abs=1e-2)


def test_an_error_of_the_model_is_not_taken_for_a_missing_kernel():
    weight = nn.Parameter(torch.ones(1))

    def loss():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        sharpness(loss, [weight])


def test_differences_need_single_precision():
    weight = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    product = HessianProduct(lambda: (weight**2).sum(), [weight], method="finite differences")
    with pytest.raises(
        ValueError, match=r"^finite differences are lost in torch.bfloat16 weights; measure in float32\.$"
    ):
        product(torch.ones(2, dtype=torch.bfloat16))


@pytest.mark.parametrize("method", ["auto", "finite differences"])
def test_differences_under_autocast_are_refused(attention, method):
    model, loss = attention
    before = copy.deepcopy(model.state_dict())

    def rounded():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return loss(True)()

    with pytest.raises(
        ValueError,
        match=r"^finite differences are lost in the rounding of torch.bfloat16; measure without autocast, or attention "
        r"by sdpa_kernel\(SDPBackend.MATH\), which has a double backward\.$",
    ):
        sharpness(rounded, list(model.parameters()), method=method)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_remedy_works(attention):
    model, loss = attention

    def rounded():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return loss(True)()

    exact = sharpness(loss(False), list(model.parameters()))
    with sdpa_kernel(SDPBackend.MATH):
        found = sharpness(rounded, list(model.parameters()))
    assert found.method == "double backward"
    assert found.value == pytest.approx(exact.value, rel=0.03)


def test_an_unknown_method_is_an_error():
    loss, parameters = quadratic(1.0)
    with pytest.raises(
        ValueError,
        match=r"^method='finite-differences'; did you mean 'finite differences'\? Choose one of auto, double ",
    ):
        sharpness(loss, parameters, method="finite-differences")
