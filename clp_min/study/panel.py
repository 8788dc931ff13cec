"""The rules that verdicts share, and how numbers are said. (No experiment is here.)"""

import math

import numpy as np
from clp_min.record import mean_and_error


def verdict(effect, least=0.0):
    """The common rule, for a headline of paired differences whose sign the paper claims to be positive.

    reproduced: mean > least and > 3 standard errors over >= 3 seeds; reversed: the same with the opposite sign; else not reproduced.
    """
    if effect["n"] < 3:
        return "no verdict (fewer than 3 seeds)"
    bar = max(least, 3 * effect["standard_error"])
    return "reproduced" if effect["mean"] > bar else "reversed" if effect["mean"] < -bar else "not reproduced"


def theory_verdict(run, holds, verdict="holds as corrected", least_seeds=3):
    """The verdict of a panel on theory: ``verdict`` if its rule holds, "disagrees" if not; none at smoke scale or with too few repetitions."""
    if run.arguments.scale == "smoke" or len(run.seeds) < least_seeds:
        return "no verdict (smoke scale or too few repetitions)"
    return verdict if holds else "disagrees"


def leave_one_out_peaks(rows):
    """For each seed's curve (rows: seeds x points), the place of the highest mean of the OTHER seeds' curves (its own if it is alone).

    A seed's own highest value lies above its neighbours by chance alone; a place chosen by the others does not.
    """
    rows = np.asarray(rows, dtype=float)
    return [int(np.delete(rows, i, 0).mean(0).argmax() if len(rows) > 1 else rows[0].argmax()) for i in range(len(rows))]


def peak(rows):
    """Curves (rows: seeds x points) -> (place of the highest mean, rises from the first value, falls to the last; one of each per seed).

    Each seed's rise and fall are measured at the place that the other seeds choose.
    """
    places, means = leave_one_out_peaks(rows), [sum(column) / len(column) for column in zip(*rows)]
    return means.index(max(means)), [r[i] - r[0] for r, i in zip(rows, places)], [r[i] - r[-1] for r, i in zip(rows, places)]


def first_near_largest(rows):
    """Place of the first mean within one standard error of the largest mean. (The noisier the curves, the earlier it comes.)"""
    columns = [mean_and_error(column)[:2] for column in zip(*rows)]
    largest, error = max(columns)
    return next(i for i, (mean, _) in enumerate(columns) if mean >= largest - (0.0 if math.isnan(error) else error))


def saturation(curve):
    """Place of a curve's first value within 5 % of its largest."""
    return next(i for i, value in enumerate(curve) if value >= max(curve) - 0.05 * abs(max(curve)))


def joint_verdict(effects, least=0.0):
    """The common rule for several effects: reproduced (reversed) if each is, else not reproduced."""
    verdicts = {verdict(effect, least) for effect in effects}
    return verdicts.pop() if len(verdicts) == 1 else "not reproduced"


def log_ratio(a, b):
    """log(a / b) of two positive measurements, safe at 0."""
    return math.log(max(a, 1e-300) / max(b, 1e-300))


def say(effect):
    """'12.3 ± 0.4 points' of a headline."""
    return f"{effect['mean']:.2f} ± {effect['standard_error']:.2f} {effect['unit']}"
