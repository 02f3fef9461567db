# SPDX-License-Identifier: Apache-2.0
"""Layers of learnt one-dimensional functions (Kolmogorov-Arnold networks), one class a basis.

Liu et al. 2024, *KAN: Kolmogorov-Arnold Networks* (arXiv 2404.19756): output o is the sum over
inputs i of functions f_oi(x_i). The bases are those of the pool of Yang et al. 2024 (arXiv
2408.08338). Every layer takes (..., in_features) to (..., out_features).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SplineKAN(nn.Module):
    """B-splines on equal knots over [-1, 1] plus a weight of SiLU(x).

    Outside the knots, which go `order` intervals beyond [-1, 1], only SiLU is left; `update_grid`
    moves them to where the inputs are.

    Args:
        in_features, out_features: I and O.
        intervals: of [-1, 1].
        order: of the polynomials.
    """

    grid: Tensor

    def __init__(
        self, in_features: int, out_features: int, *, intervals: int = 5, order: int = 3
    ) -> None:
        super().__init__()
        self.intervals, self.order = intervals, order
        knots = torch.arange(-order, intervals + order + 1) * (2 / intervals) - 1
        self.register_buffer("grid", knots.repeat(in_features, 1))
        self.base = nn.Parameter(_uniform(out_features, in_features))
        self.scale = nn.Parameter(_uniform(out_features, in_features))
        noise = 0.1 / intervals * (torch.rand(out_features, in_features, intervals + order) - 0.5)
        self.coefficients = nn.Parameter(noise)

    def bases(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., I, intervals + order); they sum to one between the inner knots."""
        x = x[..., None]
        left, right = self.grid[:, :-1], self.grid[:, 1:]
        found = ((x >= left) & (x < right)).to(x.dtype)
        for k in range(1, self.order + 1):
            rising = (x - self.grid[:, : -k - 1]) / (self.grid[:, k:-1] - self.grid[:, : -k - 1])
            falling = (self.grid[:, k + 1 :] - x) / (self.grid[:, k + 1 :] - self.grid[:, 1:-k])
            found = rising * found[..., :-1] + falling * found[..., 1:]
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        weight = self.coefficients * self.scale[..., None]
        splines = F.linear(self.bases(x).flatten(-2), weight.flatten(1))
        return F.linear(F.silu(x), self.base) + splines

    @torch.no_grad()
    def update_grid(self, x: Tensor, *, even: float = 0.02, margin: float = 0.01) -> None:
        """Move the knots to the inputs' quantiles and fit the functions anew.

        Args:
            x: (N, I), N above intervals + order.
            even: share of equal knots in the new ones.
            margin: by which equal knots reach beyond the inputs.
        """
        weight = self.coefficients * self.scale[..., None]
        values = torch.einsum("nik,oik->ino", self.bases(x), weight)
        ordered = x.sort(dim=0).values
        places = torch.linspace(0, len(x) - 1, self.intervals + 1, device=x.device).long()
        step = (ordered[-1] - ordered[0] + 2 * margin) / self.intervals
        numbers = torch.arange(self.intervals + 1, device=x.device)[:, None]
        equal = numbers * step + ordered[0] - margin
        inner = even * equal + (1 - even) * ordered[places]
        beyond = torch.arange(1, self.order + 1, device=x.device)[:, None] * step
        knots = torch.cat((inner[:1] - beyond.flip(0), inner, inner[-1:] + beyond))
        self.grid.copy_(knots.T)
        fitted = torch.linalg.lstsq(self.bases(x).transpose(0, 1), values).solution
        # the functions' values hold the scale, so the coefficients leave it out
        self.coefficients.copy_(fitted.permute(2, 0, 1) / self.scale[..., None])

    def regularisation(self) -> Tensor:
        """Mean size of the coefficients, summed over edges, plus the entropy of its shares."""
        size = self.coefficients.abs().mean(dim=-1)
        share = size / size.sum()
        return size.sum() - (share * share.log()).sum()


class ChebyshevKAN(nn.Module):
    """Chebyshev polynomials of x clamped to [-1, 1]; by recurrence, so gradients are finite there.

    Args:
        in_features, out_features: I and O.
        degree: the highest.
    """

    def __init__(self, in_features: int, out_features: int, *, degree: int = 4) -> None:
        super().__init__()
        weight = torch.randn(in_features, out_features, degree + 1)
        self.coefficients = nn.Parameter(weight / (in_features * (degree + 1)))

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        x = x.clamp(-1, 1)
        terms = _recurrence(self.coefficients.shape[-1], x, lambda n, t, last: 2 * x * t - last)
        return torch.einsum("...id,iod->...o", terms, self.coefficients)


class GaussianKAN(nn.Module):
    """Gaussians at equal centres on [-2, 2], as wide as they are apart, plus a linear map of SiLU.

    Args:
        in_features, out_features: I and O.
        centres: how many.
        normalised: the Gaussians see the input after a layer norm.
    """

    centres: Tensor

    def __init__(
        self, in_features: int, out_features: int, *, centres: int = 8, normalised: bool = False
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_features) if normalised else nn.Identity()
        self.register_buffer("centres", torch.linspace(-2, 2, centres))
        self.basis = nn.Linear(in_features * centres, out_features, bias=False)
        nn.init.trunc_normal_(self.basis.weight, std=0.1)
        self.base = nn.Linear(in_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        width = self.centres[1] - self.centres[0]
        terms = torch.exp(-(((self.norm(x)[..., None] - self.centres) / width) ** 2))
        found: Tensor = self.basis(terms.flatten(-2)) + self.base(F.silu(x))
        return found


class SwitchKAN(nn.Module):
    """1 - tanh(x - c)^2 at equal centres c on [-1.2, 0.2], after a layer norm.

    Args:
        in_features, out_features: I and O.
        centres: how many.
    """

    centres: Tensor

    def __init__(self, in_features: int, out_features: int, *, centres: int = 8) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_features)
        self.register_buffer("centres", torch.linspace(-1.2, 0.2, centres))
        self.basis = nn.Linear(in_features * centres, out_features, bias=False)
        nn.init.trunc_normal_(self.basis.weight, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        terms = 1 - torch.tanh(self.norm(x)[..., None] - self.centres) ** 2
        found: Tensor = self.basis(terms.flatten(-2))
        return found


class WaveletKAN(nn.Module):
    """A wavelet with its own shift, width and weight for each edge, plus a weight of SiLU(x).

    Args:
        in_features, out_features: I and O.
        wavelet: one of `WAVELETS`.
    """

    def __init__(
        self, in_features: int, out_features: int, *, wavelet: str = "mexican_hat"
    ) -> None:
        super().__init__()
        if wavelet not in WAVELETS:
            raise ValueError(f"wavelet must be one of {tuple(WAVELETS)}, got {wavelet!r}")
        self.wavelet = wavelet
        self.shift = nn.Parameter(torch.zeros(out_features, in_features))
        self.width = nn.Parameter(torch.ones(out_features, in_features))
        self.weight = nn.Parameter(_uniform(out_features, in_features))
        self.base = nn.Parameter(_uniform(out_features, in_features))
        self.norm = nn.BatchNorm1d(out_features)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O); in training mode a batch norm over all leading axes."""
        flat = x.reshape(-1, x.shape[-1])
        waves = WAVELETS[self.wavelet]((flat[:, None] - self.shift) / self.width)
        summed = (waves * self.weight).sum(dim=-1) + F.linear(F.silu(flat), self.base)
        found: Tensor = self.norm(summed)
        return found.view(*x.shape[:-1], -1)


class JacobiKAN(nn.Module):
    """Jacobi polynomials (a = b = 1) of tanh x plus a weight of SiLU(x); layer norm, SiLU.

    Args:
        in_features, out_features: I and O.
        degree: the highest.
    """

    def __init__(self, in_features: int, out_features: int, *, degree: int = 4) -> None:
        super().__init__()
        weight = torch.randn(in_features, out_features, degree + 1)
        self.coefficients = nn.Parameter(weight / (in_features * (degree + 1)))
        self.base = nn.Parameter(_uniform(out_features, in_features))
        self.norm = nn.LayerNorm(out_features)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        inside = torch.tanh(x)

        def following(n: int, term: Tensor, last: Tensor) -> Tensor:
            # P_n of the three-term recurrence with a = b = 1, where the constant term vanishes
            slope = (2 * n + 1) * (2 * n + 2) / (2 * n * (n + 2))
            return slope * inside * term - (n + 1) / (n + 2) * last

        terms = _recurrence(self.coefficients.shape[-1], inside, following, first=2.0)
        summed = torch.einsum("...id,iod->...o", terms, self.coefficients)
        return F.silu(self.norm(summed + F.linear(F.silu(x), self.base)))


class GramKAN(nn.Module):
    """SiLU of Gram polynomials of tanh x plus a weight of SiLU(x); layer norm, SiLU.

    Args:
        in_features, out_features: I and O.
        degree: the highest.
    """

    def __init__(self, in_features: int, out_features: int, *, degree: int = 3) -> None:
        super().__init__()
        terms = degree + 1
        self.coefficients = nn.Parameter(_uniform(in_features, out_features, terms))
        spread = 1 / (in_features * terms)
        self.damping = nn.Parameter(torch.randn(terms) * spread)
        self.base = nn.Parameter(_uniform(out_features, in_features))
        self.norm = nn.LayerNorm(out_features)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        inside = torch.tanh(x)

        def following(n: int, term: Tensor, last: Tensor) -> Tensor:
            k = n - 1
            factor = (n + k) * (n - k) * k**2 * (4 * k**2 - 1) / n**2
            return inside * term - factor * self.damping[k] * last

        terms = F.silu(_recurrence(self.coefficients.shape[-1], inside, following))
        summed = torch.einsum("...id,iod->...o", terms, self.coefficients)
        return F.silu(self.norm(summed + F.linear(F.silu(x), self.base)))


class ReluKAN(nn.Module):
    """Squared products of two ReLU, bells between learnt ends, and a linear map of all.

    Args:
        in_features, out_features: I and O.
        intervals: of [0, 1], where the bells begin.
        order: how many intervals beyond it, and each bell's width.
    """

    def __init__(
        self, in_features: int, out_features: int, *, intervals: int = 5, order: int = 3
    ) -> None:
        super().__init__()
        self.height = 4 * intervals**2 / (order + 1) ** 2
        low = torch.arange(-order, intervals) / intervals
        self.low = nn.Parameter(low.repeat(in_features, 1))
        self.high = nn.Parameter(self.low.detach() + (order + 1) / intervals)
        self.basis = nn.Linear((intervals + order) * in_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        x = x[..., None]
        bells = (F.relu(x - self.low) * F.relu(self.high - x) * self.height) ** 2
        found: Tensor = self.basis(bells.flatten(-2))
        return found


def _mexican_hat(u: Tensor) -> Tensor:
    height = 2 / math.sqrt(3 * math.sqrt(math.pi))
    return torch.exp(-u.square() / 2) * (u.square() - 1) * height


def _morlet(u: Tensor) -> Tensor:
    return torch.cos(5 * u) * torch.exp(-(u**2) / 2)


def _derivative_of_gaussian(u: Tensor) -> Tensor:
    return -u * torch.exp(-(u**2) / 2)


def _meyer(u: Tensor) -> Tensor:
    size = u.abs()
    t = (2 * size - 1).clamp(0, 1)
    falling = torch.cos(math.pi / 2 * t**4 * (35 - 84 * t + 70 * t**2 - 20 * t**3))
    return torch.sin(math.pi * size) * falling


WAVELETS: dict[str, Callable[[Tensor], Tensor]] = {
    "mexican_hat": _mexican_hat,
    "morlet": _morlet,
    "derivative_of_gaussian": _derivative_of_gaussian,
    "meyer": _meyer,
}


def _recurrence(
    terms: int, x: Tensor, following: Callable[[int, Tensor, Tensor], Tensor], first: float = 1.0
) -> Tensor:
    """(..., terms): 1, first * x, then following(n, term n - 1, term n - 2)."""
    found = [torch.ones_like(x), first * x]
    for n in range(2, terms):
        found.append(following(n, found[-1], found[-2]))
    return torch.stack(found[:terms], dim=-1)


def _uniform(*shape: int) -> Tensor:
    """Kaiming's uniform numbers for a layer that reads the second axis."""
    return nn.init.kaiming_uniform_(torch.empty(*shape), a=math.sqrt(5))
