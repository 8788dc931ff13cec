"""Why a warm start can test worse: learning as counting (after Shin et al. 2024, "DASH", who call
it discrete feature learning; simplified to one class of independent features).

An example has some of K features. Learning takes, one at a time, the feature that most of the
examples not yet fitted have, if at least ``enough`` of them have it; an example with ``needed``
learned features is fitted and teaches no more. When no feature is left that is frequent enough, the
rest are memorised: fitted too, and of no use on new examples. A warm start keeps what was
memorised, so those examples never count again; an ideal one keeps the features alone.
"""

import numpy as np

from theory.checks import real, whole


def learn(has, learned, memorised, enough, needed):
    """One stage of training -> (learned (K,), memorised (n,), features newly learned).

    has (n, K) booleans; learned (K,), memorised (n,): what is so from before; neither is changed.
    """
    whole(1, enough=enough)
    whole(0, needed=needed)
    learned, start = learned.copy(), int(learned.sum())
    while True:
        fitted = memorised | (has[:, learned].sum(1) >= needed)
        counts = np.where(learned, 0, has[~fitted].sum(0))
        if counts.max(initial=0) < enough:
            return learned, memorised | ~fitted, int(learned.sum()) - start
        learned[counts.argmax()] = True


def two_stages(has, first, arm, enough, needed, keep=1.0):
    """(learned, memorised, features newly learned in the second stage) of training on the first
    ``first`` examples, then on all.

    arm: "random" (the first stage is forgotten), "warm" (all is kept), "ideal" (memories are
    forgotten), "shrink": what was learned from c examples, with c * keep < 1, is forgotten; a
    memory is of one, so that keep < 1 forgets all memories and only the rarest features.
    """
    whole(0, first=first)
    whole(1, enough=enough)
    whole(0, needed=needed)
    real(0, 1, keep=keep)
    n, k = has.shape
    nothing = np.zeros(k, bool), np.zeros(n, bool)
    learned, memorised = nothing
    if arm not in ("random", "warm", "ideal", "shrink"):
        raise ValueError(f"arm must be random, warm, ideal or shrink, got {arm!r}")
    if arm != "random":
        learned, memory, _ = learn(has[:first], nothing[0], nothing[1][:first], enough, needed)
        memorised = np.concatenate([memory, nothing[1][first:]])
        if arm == "ideal" or arm == "shrink" and keep < 1:
            memorised = nothing[1]
        if arm == "shrink":
            learned = learned & (has[:first].sum(0) * keep >= 1)
    return learn(has, learned, memorised, enough, needed)


def chance_to_fit(frequencies, learned, needed):
    """Probability that a new example, with each feature independently at its frequency (K,), has at
    least ``needed`` of the learned ones: exact, by convolution."""
    real(0, 1, frequencies=frequencies)
    whole(0, needed=needed)
    counts = np.ones(1)
    for p in np.asarray(frequencies, dtype=float)[learned]:
        counts = np.convolve(counts, [1 - p, p])
    return float(counts[needed:].sum())
