"""Student's t and chi-square without SciPy: quantiles, tail probabilities, and what a test can detect."""

import functools
import math
import statistics
from collections.abc import Callable

import numpy as np


def two_sided_p(t: np.ndarray, freedom: int) -> np.ndarray:
    """P(|T| > |t|), elementwise, for a whole number of degrees of freedom: the finite sums of Abramowitz & Stegun
    26.7.3 and 26.7.4.
    """
    angle = np.arctan(np.abs(t) / math.sqrt(freedom))
    sine, cos2 = np.sin(angle), np.cos(angle) ** 2
    term, total = np.ones_like(angle), np.ones_like(angle)
    for k in range(1 if freedom % 2 == 0 else 2, freedom - 1, 2):
        term = term * k / (k + 1) * cos2
        total = total + term
    if freedom % 2 == 0:
        return np.asarray(1.0 - sine * total)
    inner = 0.0 if freedom == 1 else sine * np.cos(angle) * total
    return np.asarray(1.0 - 2.0 / math.pi * (angle + inner))


@functools.cache
def t_quantile(p: float, df: int) -> float:
    """Quantile of Student's t for a whole number of degrees of freedom, by bisection of the closed-form CDF.

    Beyond 1000 degrees, where the sum is long, the first terms of the expansion 26.7.5 of Abramowitz & Stegun.
    Raises ValueError unless 0 < p < 1 and df >= 1.
    """
    if not 0 < p < 1 or df < 1:
        raise ValueError(f"wanted 0 < p < 1 and df >= 1; got {p=} and {df=}")
    if p < 0.5:
        return -t_quantile(1 - p, df)
    if p == 0.5:
        return 0.0
    if df > 1000:
        x = statistics.NormalDist().inv_cdf(p)
        second, third = (x**3 + x) / 4, (5 * x**5 + 16 * x**3 + 3 * x) / 96
        return x + second / df + third / df**2 + (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384 / df**3
    return _where(lambda t: _cdf(t, df), p)


def _cdf(t: float, df: int) -> float:
    """The same sums for one number, several times as fast."""
    angle = math.atan2(t, math.sqrt(df))
    cos2, term, total = math.cos(angle) ** 2, 1.0, 1.0
    first = 1 if df % 2 == 0 else 2
    for k in range(first, df - 1, 2):
        term *= k / (k + 1) * cos2
        total += term
    if df % 2 == 0:
        return 0.5 + 0.5 * math.sin(angle) * total
    inner = 0.0 if df == 1 else math.sin(angle) * math.cos(angle) * total
    return 0.5 + (angle + inner) / math.pi


@functools.cache
def detectable_errors(freedom: int, level: float = 0.95, power: float = 0.8) -> float:
    """How many standard errors a true effect must have, to be found on its side with the given power.

    The shift of the noncentral t distribution that puts `power` beyond the quantile of `level`. The usual sum of two
    t quantiles promises too much for few sessions: with three of them it has 77 % power where it says 80 %.
    """
    quantile = t_quantile(0.5 + level / 2, freedom)
    # P(T > q) is the mean of Phi(shift - q s) over s, the estimated spread over the true one: chi / sqrt(freedom)
    s = np.linspace(0, 1 + 9 / math.sqrt(freedom), 802)[1:] - (0.5 + 4.5 / math.sqrt(freedom)) / 801  # midpoints
    log_density = (freedom - 1) * np.log(s) - freedom * s**2 / 2
    weight = np.exp(log_density - log_density.max())
    weight /= weight.sum()
    low, high = 0.0, 10 * quantile
    for _ in range(40):
        middle = (low + high) / 2
        found = sum(w * 0.5 * math.erfc((quantile * x - middle) / math.sqrt(2)) for x, w in zip(s, weight, strict=True))
        low, high = (middle, high) if found < power else (low, middle)
    return (low + high) / 2


@functools.cache
def chi_square_quantile(p: float, df: int) -> float:
    """Quantile of the chi-square distribution for a whole number of degrees of freedom, by bisection.

    The CDF as a finite sum: Abramowitz & Stegun 26.4.4 and 26.4.5. Raises ValueError unless 0 < p < 1 and df >= 1.
    """
    if not 0 < p < 1 or df < 1:
        raise ValueError(f"wanted 0 < p < 1 and df >= 1; got {p=} and {df=}")
    return _where(lambda x: _chi_square_cdf(x, df), p)


def _where(cdf: Callable[[float], float], p: float) -> float:
    """The positive x at which a CDF reaches p, by bisection."""
    low, high = 0.0, 1.0
    while cdf(high) < p:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if cdf(middle) < p else (low, middle)
    return (low + high) / 2


def _chi_square_cdf(x: float, df: int) -> float:
    if x <= 0:
        return 0.0
    start = 1 if df % 2 else 2
    tail = math.erfc(math.sqrt(x / 2)) if df % 2 else math.exp(-x / 2)
    for k in range(start, df, 2):  # each two degrees add one term; in logarithms, as the powers overflow
        tail += math.exp(k / 2 * math.log(x / 2) - x / 2 - math.lgamma(k / 2 + 1))
    return 1.0 - tail
