"""Similarity of features, and the common direction of weight changes ("Trap of feature diversity in
the learning of MLPs").

Layer l of an MLP: F_l = D_l W_l F_{l-1}, W_l (h, d), D_l the gates. One plain gradient step on one
example changes W_l by -lr * delta F_{l-1}', a matrix of rank one, which is kept as its two factors:
delta (n, h), the gradient of the loss in the layer's output, and features (n, d), the layer's
input. This and the decompositions below hold for nets without batch coupling (no BatchNorm in
training mode).
"""

from contextlib import ExitStack
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from clp_min.checks import check_finite, check_real, check_tensors, check_whole
from clp_min.layer_rules import check_modes


# ---- similarities: mean cosines over ordered pairs, float64; a row of zeros has cosine 0


def feature_similarity(features):
    """Mean cosine over all ordered pairs i != j of rows (n, d): Fig. 3, left. ValueError: fewer
    than two rows."""
    unit = _unit_rows(features)
    n = len(unit)
    if n < 2:
        raise ValueError(f"a similarity needs at least two rows, got {n}")
    return float((unit.sum(0).square().sum() - unit.square().sum()) / (n * (n - 1)))


def cross_class_similarity(features, labels):
    """Mean cosine over ordered pairs of rows (n, d) of different classes, labels (n,): Fig. 2(a)
    and 10. ValueError: a single class."""
    unit, sums, counts = _by_class(features, labels)
    pairs = len(unit) ** 2 - int(counts.square().sum())
    if not pairs:
        raise ValueError("cross_class_similarity needs at least two classes")
    return float((unit.sum(0).square().sum() - sums.square().sum()) / pairs)


def within_class_similarity(features, labels):
    """Mean cosine over ordered pairs i != j of rows (n, d) of the same class: of feature gradients
    Fig. 2(b). ValueError: no class has two examples."""
    unit, sums, counts = _by_class(features, labels)
    pairs = int((counts * (counts - 1)).sum())
    if not pairs:
        raise ValueError("within_class_similarity needs two examples of a class")
    return float((sums.square().sum() - unit.square().sum()) / pairs)


def pseudo_neuron_similarity(matrix):
    """Mean cosine between the columns of W or of a change of W (h, d), the paper's pseudo-neurons:
    Fig. 2(c). Of the change that ONE example makes it is 1 up to signs, whatever was learned: the
    columns of delta F' are multiples of delta. So take a category's sum."""
    check_tensors(matrix=(matrix, "h d"))
    return feature_similarity(matrix.T)


def _unit_rows(features):
    check_tensors(features=(features, "n d"))
    check_finite(features=features)
    return F.normalize(features.double(), dim=1, eps=1e-300)


def _by_class(features, labels):
    """(unit rows, their sums by class (classes, d), numbers of rows (classes,))."""
    check_tensors(features=(features, "n d"), labels=(labels, "int n"))
    unit = _unit_rows(features)
    _, own = labels.unique(return_inverse=True)
    member = F.one_hot(own).to(unit.dtype)
    return unit, member.T @ unit, member.sum(0)


# ---- what one example changes


def layer_factors(model, x, y):
    """For every Linear layer of the model: name -> (delta (n, h), features (n, d)), so that one
    gradient step on example i alone changes W by -lr delta_i features_i'.

    delta is the gradient of each example's own cross-entropy in the layer's output. In eval mode;
    ValueError: BatchNorm with batch statistics,
    where examples have no gradient of their own, or Dropout in training mode.

    The chain rule of Eq. 19."""
    check_tensors(x=(x, "n ..."), y=(y, "label n"))
    check_modes(model)
    kept = {}

    def keep(name, module, inputs, output):
        kept[name] = inputs[0], output

    with ExitStack() as hooks, torch.enable_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                hooks.enter_context(module.register_forward_hook(partial(keep, name)))
        loss = F.cross_entropy(model(x), y, reduction="sum")
    deltas = torch.autograd.grad(loss, [output for _, output in kept.values()])
    return {
        name: (delta, features.detach())
        for (name, (features, _)), delta in zip(kept.items(), deltas)
    }


def summed_change(factors):
    """sum_i delta_i features_i' (h, d) of a layer's factors: the change of W by the summed loss is
    -lr times it.

    The "overall weight change" of Section 3.2.1, made by the examples given."""
    delta, features = factors
    return delta.T @ features


# ---- common directions


def common_directions(delta_w, k):
    """The k directions (k, h), orthonormal, that take most of the changes: Eq. 3 for the first.

    They are the top eigenvectors of sum_i dW_i dW_i'; delta_w is (n, h, d), or the rank-one factors
    (delta (n, h), features (n, d)), for which that is sum_i |F_i|^2 delta_i delta_i'. Signs are
    arbitrary. ValueError: k outside 1..h.
    """
    if isinstance(delta_w, (tuple, list)):
        delta, features = delta_w
        check_tensors(delta=(delta, "n h"), features=(features, "n d"))
        scaled = delta.double() * features.double().norm(dim=1, keepdim=True)
        total = scaled.T @ scaled
    else:
        check_tensors(delta_w=(delta_w, "n h d"))
        flat = delta_w.double().transpose(0, 1).flatten(1)  # (h, n d)
        total = flat @ flat.T
    check_whole(1, len(total), k=k)
    check_finite(delta_w=total)
    vectors = torch.linalg.eigh(total)[1]
    return vectors.T.flip(0)[:k].to(delta_w[0].dtype)


def recursive_directions(first, change, k):
    """Appendix D: after ``first`` (h,), the common direction by Eq. 3, each next one is Eq. 3 of
    what is left of the overall change (h, d) -> (k, h), orthonormal.

    Of one matrix alone, started from its own first, this is the singular value decomposition; from
    the examples' first it is not, though it stays orthogonal.
    """
    check_tensors(first=(first, "h"), change=(change, "h d"))
    check_finite(first=first, change=change)
    check_whole(1, len(first), k=k)
    directions, left = [first / first.norm()], change
    for _ in range(k - 1):
        left = left - torch.outer(directions[-1], directions[-1] @ left)
        directions.append(common_directions(left[None], 1)[0])
    return torch.stack(directions)


def direction_strengths(change, directions):
    """s_i = |C_i (C_i' dW)|_F (k,) of an overall change dW (h, d) along unit directions (k, h):
    Fig. 4. Already 6 to 13 to 1 at random weights: report its growth."""
    check_tensors(change=(change, "h d"), directions=(directions, "k h"))
    return (directions.to(change.dtype) @ change).norm(dim=1)


def along_direction(w, c):
    """W = C V' + eps' with eps C = 0: (V (d,), eps (d, h)) for W (h, d) and a direction C (h,).

    Lemma 2 (and Lemma 1 for a change of W): V = W'C / C'C and eps = W' (I - CC'/C'C). The printed
    eps = W' - (CC'/C'C) W' multiplies from the wrong side: d x h by h x h.
    """
    check_tensors(w=(w, "h d"), c=(c, "h"))
    c = c.to(w.dtype)
    v = w.T @ c / (c @ c)
    return v, w.T - torch.outer(v, c)


def component_strengths(w_next, c_next, gates, delta_next, features):
    """Theorem 1: how strong are the parts of each example's change of W_l, for a step of rate 1?

    With W_{l+1} = C V' + eps', eps = sum_i s_i u_i v_i' and delta_{l+1} of the layer above:
    dW_l(x) = -D [V (C'delta) + sum_i s_i u_i (v_i'delta)] F_{l-1}'. Returns the Frobenius norms of
    the primary part (n,), of the parts i by falling s_i (n, rank), and of their sum (n,).
    gates (n, h): the derivative of the activation. delta_next (n, h'), features (n, d).
    """
    check_tensors(w_next=(w_next, "h' h"), c_next=(c_next, "h'"), gates=(gates, "n h"),
            delta_next=(delta_next, "n h'"), features=(features, "n d"))
    v, eps = along_direction(w_next, c_next)  # (h,), (h, h')
    c = (c_next / c_next.norm()).to(w_next.dtype)
    v = v * c_next.norm()  # of the unit direction
    length = features.norm(dim=1)
    primary = (gates * v).norm(dim=1) * (delta_next @ c).abs() * length
    u, s, vh = torch.linalg.svd(eps, full_matrices=False)
    sizes = torch.einsum("nh,hr->nr", gates.square(), u.square()).sqrt()
    others = sizes * (delta_next @ vh.T).abs() * s * length[:, None]
    rest = (gates * (delta_next @ eps.T)).norm(dim=1) * length
    return primary, others, rest


def direction_agreement(w, c, delta, features, change=None):
    """o(x) = cos(dV(x), F(x)) cos(V, dF(x)) (n,), Theorem 2 and Fig. 6, for a step on each example
    alone; w (h, d), c (h,), delta (n, h), features (n, d).

    change: the change of the features dF (n, d); None: the paper's stand-in, minus their gradient.
    The first cosine is 1 or -1 for any c whatever: dV(x) = -lr (c'delta) F(x). What is left is
    whether sign(-c'delta) cos(V, dF) is positive.
    """
    check_tensors(w=(w, "h d"), c=(c, "h"), delta=(delta, "n h"), features=(features, "n d"))
    v, _ = along_direction(w, c)
    change = -(delta @ w) if change is None else change
    check_tensors(change=(change, "n d"), features=(features, "n d"))
    sign = -torch.sign(delta @ c.to(delta.dtype)) * torch.sign(features.square().sum(1))
    return sign * F.cosine_similarity(change, v[None], dim=1, eps=1e-300)


def theorem2_terms(w, c, delta):
    """The two terms of Theorem 2's proof for unit c: |V|^2 C'delta and V'eps delta (n,) each, and
    sigma_max(eps) / |V|. The product of cosines is >= 0 exactly if the first is not outweighed by
    the second with the other sign: |V|^2 |C'delta| >= -sgn(C'delta) V'eps delta."""
    check_tensors(w=(w, "h d"), c=(c, "h"), delta=(delta, "n h"))
    c = (c / c.norm()).to(w.dtype)
    v, eps = along_direction(w, c)
    ratio = torch.linalg.matrix_norm(eps, 2) / v.norm()
    return v.square().sum() * (delta @ c), delta @ (eps.T @ v), float(ratio)


# ---- the plasticity literature's measures of a layer


def dormant_share(features, threshold=0.025):
    """Share of a layer's neurons whose mean |activation| over the examples is at most ``threshold``
    of the layer's mean (Sokar et al. 2023). features (n, d)."""
    check_tensors(features=(features, "n d"))
    check_finite(features=features)
    check_real(0, threshold=threshold)
    size = features.abs().double().mean(0)
    return float((size <= threshold * size.mean()).double().mean())


def effective_rank(features):
    """exp of the entropy of the normalised singular values of (n, d) features (Roy & Vetterli
    2007): between 1 and min(n, d). ValueError: all are 0."""
    check_tensors(features=(features, "n d"))
    check_finite(features=features)
    s = torch.linalg.svdvals(features.double())
    if not s.sum() > 0:
        raise ValueError("all features are 0: they have no effective rank")
    p = s / s.sum()
    return float(torch.exp(-torch.special.xlogy(p, p).sum()))
