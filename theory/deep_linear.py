"""A critical period in closed form: two pathways of a deep linear network, one of them gated for a
while (Kleinman, Achille & Soatto 2023).

In each singular mode of strength S the pathways a and b of depth D carry K = p |p|^(D-1) with
balanced weights p, and

    dp/dt = |p|^(D-1) (S - K_a - K_b)

While b is gated its weights do not learn. Gated early, a takes the whole mode, the residual is gone
when the gate opens, and b never recovers: K_b stays where it began. Gated later, when the mode is
learned, nothing happens.
"""

import numpy as np

from theory.checks import real, whole


def gated_pathways(strength, depth, gate=(0, 0), duration=1000.0, dt=0.01, start=0.01):
    """Euler steps of the two equations; b does not learn for gate[0] <= t < gate[1]
    (Kleinman et al. 2023). strength (modes,) or a number, start the first K of both.

    -> (K_a, K_b), each (steps + 1, modes).
    """
    whole(2, depth=depth)
    real(0, strength=strength, gate=gate)
    real(above=0, duration=duration, dt=dt, start=start)
    strength = np.atleast_1d(np.asarray(strength, dtype=np.float64))
    if duration < dt:
        raise ValueError(f"duration must be at least dt, got {duration} and {dt}")
    steps = round(duration / dt)
    opens, closes = round(gate[0] / dt), round(gate[1] / dt)
    p = np.full((2, len(strength)), start ** (1 / depth))
    history = np.empty((steps + 1, 2, len(strength)))
    for t in range(steps + 1):
        power = np.abs(p) ** (depth - 1)
        history[t] = p * power
        learning = np.array([[1.0], [0.0 if opens <= t < closes else 1.0]])
        p = p + dt * learning * power * (strength - history[t].sum(0))
    return history[:, 0], history[:, 1]


def early_gate_limit(strength, start=0.01):
    """(K_a, K_b) after an early gate that lasts until a has learned the mode:
    (S - start, start)."""
    real(0, strength=strength)
    real(above=0, start=start)
    return strength - start, start


# of the eight-item hierarchy's input-output matrix
HIERARCHY_STRENGTHS = np.sqrt([15.0, 7.0, 3.0, 3.0, 1.0, 1.0, 1.0, 1.0])
