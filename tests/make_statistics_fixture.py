#!/usr/bin/env python3
"""Writes tests/fixtures/statistics.json: what scipy makes of the inputs of tests/test_statistics.h.

    pip install scipy && python3 tests/make_statistics_fixture.py

Each list has one object a case, with its inputs and scipy's results: Student's t (scipy.stats.t), the 95 % interval of the
mean of differences (ttest_rel and its confidence_interval), the smallest detectable difference, and fits of a + b N^-c
(scipy.optimize.curve_fit with its covariance; for numbers of a good size it gets N / 10^7 and b' = b 10^(-7c), and the
covariance is that of a, b', c). The inputs are fixed.
"""
import json
import os

import numpy
from scipy import optimize, stats


def student():
    cases = []
    for df in (1, 2, 3, 4, 7, 19, 100, 1000):
        for t in (-30.0, -3.0, -0.5, 0.0, 0.1, 1.0, 2.5, 12.0):
            cases.append({"df": df, "t": t, "cdf": stats.t.cdf(t, df)})
        for p in (0.025, 0.2, 0.5, 0.8, 0.975, 0.999):
            cases.append({"df": df, "p": p, "quantile": stats.t.ppf(p, df)})
    return cases


def pairs():
    first = [3.926, 3.908, 3.913, 3.9211, 3.8998]
    second = [3.924, 3.897, 3.912, 3.9003, 3.9021]
    cases = []
    for n in (2, 3, 5):
        d = numpy.array(second[:n]) - numpy.array(first[:n])
        interval = stats.ttest_rel(second[:n], first[:n]).confidence_interval(0.95)
        s = d.std(ddof=1)
        cases.append({"first": first[:n], "second": second[:n], "mean": d.mean(), "deviation": s,
                      "low": interval.low, "high": interval.high,
                      "detectable": (stats.t.ppf(0.975, n - 1) + stats.t.ppf(0.8, n - 1)) * s / n ** 0.5,
                      "prediction": stats.t.ppf(0.975, n - 1) * s * (1 + 1 / n) ** 0.5})
    return cases


def fits():
    sizes = {
        "five sizes, three seeds": [1e6, 3e6, 1e7, 4e7, 3e8],
        "four sizes, one seed": [2e6, 8e6, 3e7, 1.2e8],
        "three sizes, three seeds": [1e6, 1e7, 1e8],
    }
    cases = []
    for name, N in sizes.items():
        seeds = 3 if "three seeds" in name else 1
        generator = numpy.random.default_rng(len(name))
        N = numpy.repeat(numpy.array(N), seeds)
        L = numpy.round(1.7 + 30 * N ** -0.2 + generator.normal(0, 0.01, len(N)), 6)
        x = N / 1e7
        value, covariance = optimize.curve_fit(lambda x, a, b, c: a + b * x ** -c, x, L, p0=(1.7, 1, 0.2), ftol=1e-15,
                                               xtol=1e-15, gtol=1e-15, maxfev=100000)
        cases.append({"name": name, "N": N.tolist(), "L": L.tolist(), "value": value.tolist(),
                      "deviation": numpy.sqrt(numpy.diag(covariance)).tolist(),
                      "half_width": (stats.t.ppf(0.975, len(N) - 3) * numpy.sqrt(numpy.diag(covariance))).tolist()})
    return cases


def main():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", "statistics.json")
    with open(path, "w") as f:
        json.dump({"student": student(), "pairs": pairs(), "fits": fits()}, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
