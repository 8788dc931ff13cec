"""Which examples a step trains on: Algorithms 1, 2 and 3 of "Generalization and memorization in
sparse neural networks", its own proposal of section 4.2.1, two stages by loss and Fisher trace, and
the penalty of section 4.1.

Functions for ``Phase.select`` take (model, x, y, n, generator, indices, step) and return n places
in the pool x, y. Scores are exact per-example Fisher traces of the kept weights (or random signs),
never of one drawn label, which is 0 for almost every confident example.
"""

from functools import partial

import torch
import torch.nn.functional as F

from clp_min.checks import check_real, check_tensors, check_whole
from clp_min.fisher import per_example_fisher
from clp_min.sparsity import prunable_weights


def select_lowest(scores, n):
    """Indices of the n smallest scores (m,), ascending; ties to the earlier. Algorithm 1, line 5.
    ValueError: n outside 1..m, a score that is nan."""
    return _ranked(scores, n)


def select_highest(scores, n):
    """Indices of the n largest scores (m,), descending; ties to the earlier. Algorithm 2,
    line 5."""
    return _ranked(scores, n, descending=True)


def select_reducible(scores, holdout_scores, n):
    """Indices of the n largest differences scores - holdout_scores (m,): Algorithm 3, lines 5 and 6
    ("ReduceFisher" and "ReducibleFisher" are one)."""
    check_tensors(scores=(scores, "m"), holdout_scores=(holdout_scores, "m"))
    return select_highest(scores - holdout_scores, n)


def _ranked(scores, n, descending=False):
    check_tensors(scores=(scores, "m"))
    check_whole(1, len(scores), n=n)
    if scores.device.type != "meta" and scores.isnan().any():
        raise ValueError("a score is nan")
    return scores.argsort(descending=descending, stable=True)[:n]


def nonzero_masks(model):
    """Parameter name -> mask of the weights of Conv2d and Linear layers that are not 0. In a net
    under masks these are the kept ones: pruned weights are exactly 0 after every step, kept ones
    are not. A layer of zeros alone, as a last one may begin, is kept."""
    return {name: (w != 0) | ~w.any() for name, w in prunable_weights(model).items()}


def fisher_scores(model, x, labels="expected", generator=None):
    """Tr F(theta | x_i) (n,) of each example, over the weights that are not 0.

    Line 4 of Algorithms 1 and 2, lines 1 and 5 of Algorithm 3."""
    parts = per_example_fisher(model, x, labels, nonzero_masks(model), generator)
    return sum(parts.values()).detach()


# ---- for Phase.select


def uniform(model, x, y, n, generator, indices, step):
    """The control: n of the pool at random, from the same pools.

    Algorithm 1, line 9: n of a pool that is itself uniform are uniform in the whole set."""
    return torch.randperm(len(x), device=x.device, generator=generator)[:n]


def by_fisher(choose, labels="expected"):
    """Algorithms 1 and 2: ``choose`` (select_lowest or select_highest) by the Fisher trace."""
    return partial(_by_fisher, choose, labels)


def _by_fisher(choose, labels, model, x, y, n, generator, indices, step):
    return choose(fisher_scores(model, x, labels, generator), n)


def reducible(holdout_scores, labels="expected"):
    """Algorithm 3. holdout_scores (N,): the traces of every training example under the small net
    that was trained on the holdout set, looked up by index."""
    check_tensors(holdout_scores=(holdout_scores, "N"))
    return partial(_reducible, holdout_scores, labels)


def _reducible(holdout_scores, labels, model, x, y, n, generator, indices, step):
    scores = fisher_scores(model, x, labels, generator)
    return select_reducible(scores, holdout_scores[indices], n)


def hardest_first(start, steps, labels="expected"):
    """Section 4.2.1: the hardest examples first, then gradually easier ones. The batch is the
    highest n by Fisher trace of the first m of the pool, m falling in a straight line from the
    whole pool at step ``start`` to n (uniform sampling) ``steps`` later."""
    check_whole(start=start)
    check_whole(1, steps=steps)
    return partial(_hardest_first, start, steps, labels)


def _hardest_first(start, steps, labels, model, x, y, n, generator, indices, step):
    left = max(1 - (step - start) / steps, 0.0)
    m = n + round(left * (len(x) - n))
    if m == n:
        return torch.arange(n, device=x.device)
    return select_highest(fisher_scores(model, x[:m], labels, generator), n)


def bilevel(labels="expected"):
    """Section 4.2.2's note: first the 2n examples of highest loss (the label counts), of them the n
    of highest Fisher trace (it does not)."""
    return partial(_bilevel, labels)


def _bilevel(labels, model, x, y, n, generator, indices, step):
    with torch.no_grad():
        losses = F.cross_entropy(model(x), y, reduction="none")
    first = select_highest(losses, min(2 * n, len(x)))
    return first[select_highest(fisher_scores(model, x[first], labels, generator), n)]


# ---- for Phase.loss


def fisher_penalty(strength):
    """Section 4.1: cross-entropy + strength * Tr F of the batch, as a loss (model, x, y) -> scalar;
    a negative strength is the paper's "negative Fisher regularization".

    Tr F as Jastrzebski et al. (2021) estimate it: with labels drawn from p(y|x), n times the
    squared norm of the batch's mean gradient, unbiased since the mean score is 0; over the weights
    that are not 0. Labels come from torch's global generator, which a run seeds for each step.
    """
    check_real(strength=strength)
    return partial(_fisher_penalty, strength)


def _fisher_penalty(strength, model, x, y):
    logits = model(x)
    with torch.no_grad():
        drawn = torch.multinomial(logits.softmax(1), 1)[:, 0]
    parameters, masks = dict(model.named_parameters()), nonzero_masks(model)
    gradients = torch.autograd.grad(
        F.cross_entropy(logits, drawn), list(parameters.values()), create_graph=True
    )
    kept = [g * masks[name] if name in masks else g for name, g in zip(parameters, gradients)]
    return F.cross_entropy(logits, y) + strength * len(x) * sum(g.square().sum() for g in kept)
