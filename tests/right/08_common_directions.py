"""A sum of outer products, and cosines pair by pair."""

import torch


def common_directions(delta_w, k):
    if isinstance(delta_w, (tuple, list)):
        delta, features = delta_w
        changes = [torch.outer(d, f) for d, f in zip(delta, features)]
    else:
        changes = list(delta_w)
    total = sum(w.double() @ w.double().T for w in changes)
    if not 1 <= k <= len(total):
        raise ValueError("k must lie between 1 and the number of rows")
    values, vectors = torch.linalg.eigh(total)
    order = values.argsort(descending=True)[:k]
    return vectors[:, order].T.to(changes[0].dtype)


def cross_class_similarity(features, labels):
    if len(labels) != len(features):
        raise ValueError("a label for each row is needed")
    cosines = []
    for i, a in enumerate(features):
        for j, b in enumerate(features):
            if labels[i] != labels[j]:
                norms = a.norm() * b.norm()
                cosines.append(float(a @ b / norms) if norms > 0 else 0.0)
    if not cosines:
        raise ValueError("at least two classes are needed")
    return sum(cosines) / len(cosines)
