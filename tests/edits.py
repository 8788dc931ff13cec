"""Plausible wrong solutions as edits of our own source, beside those written out in mutants/: what
a student might get wrong, in words, and the test that must fail."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EDITS = [  # (module, function, the mistake, old text, new text, test)
    ("clp_min/deficits.py", "gaussian_blur", "pads with zeros instead of reflecting",
     'mode="reflect"', 'mode="constant"', "equals_the_direct_sum"),
    ("clp_min/deficits.py", "gaussian_blur", "forgets the 2 of 2 sigma^2",
     "(2 * sigma**2)", "sigma**2", "equals_the_direct_sum"),
    ("clp_min/deficits.py", "label_noise", "a coin flip for each label, not exactly the share",
     "redrawn[order[: round(fraction * len(y))]] = True",
     "redrawn = torch.rand(len(y), generator=generator) < fraction",
     "redraws_exactly_the_share_over_all_classes"),
    ("clp_min/gradients.py", "effective_gradient", "divides by |d| instead of |d|^2",
     "/ squared * direction", "/ squared.sqrt() * direction", "is_the_projection"),
    ("theory/sgd.py", "minibatch_second_moment", "as if drawn with replacement",
     "(1.0 if replacement else (n - batch) / max(n - 1, 1))", "1.0", "lemma1_by_enumeration"),
    ("theory/sgd.py", "theorem1_bound", "as printed: without the denominator 1 - M lr / 2",
     " / (1 - smoothness * lr / 2)", "", "holds_and_is_sharp"),
    ("theory/sgd.py", "theorem1_bound", "forgets the half of the noise",
     "smoothness * lr * variance / 2)", "smoothness * lr * variance)", "holds_and_is_sharp"),
    ("theory/softmax_phases.py", "simulate", "forgets that half of the examples are strong",
     "lr * d / (2 * l) * (weak + strong)", "lr * d / l * (weak + strong)",
     "scalar_equals_matrix_equals_autograd"),
    ("theory/softmax_phases.py", "simulate", "forgets the strength in front of the strong term",
     "(v / (np.exp(min(v * delta[t], 700.0)) + l - 1) for v in (1, k))",
     "(1 / (np.exp(min(v * delta[t], 700.0)) + l - 1) for v in (1, k))",
     "scalar_equals_matrix_equals_autograd"),
    ("clp_min/train.py", "shrink_perturb", "plain noise instead of a fresh net",
     ".add_(others[name], alpha=perturb)", ".add_(torch.randn_like(parameter), alpha=perturb)",
     "is_the_formula_in_place"),
    ("clp_min/train.py", "shrink_perturb", "shrinks the perturbation too",
     "parameter.mul_(shrink).add_(others[name], alpha=perturb)",
     "parameter.add_(others[name], alpha=perturb).mul_(shrink)", "is_the_formula_in_place"),
    ("clp_min/sparsity.py", "magnitude_masks", "prunes the largest weights",
     "sizes.argsort(stable=True)", "sizes.argsort(stable=True, descending=True)",
     "prune_the_smallest_exactly_and_globally"),
    ("clp_min/sparsity.py", "magnitude_masks", "by the weight, not its absolute value",
     "weight.abs().flatten()", "weight.flatten()", "prune_the_smallest_exactly_and_globally"),
    ("clp_min/curvature.py", "hessian_trace", "random normal numbers instead of signs",
     "z = torch.randint(2, kept.shape, device=kept.device, generator=generator)\n"
     "        return (2.0 * z - 1.0).to(kept.dtype) * kept",
     "return torch.randn(kept.shape, generator=generator).to(kept.dtype) * kept",
     "of_one_weight_is_exact_with_signs"),
    ("clp_min/curvature.py", "hessian_trace", "the standard deviation for the standard error",
     "float(rest.std() / len(rest) ** 0.5)", "float(rest.std())",
     "is_unbiased_and_its_standard_error_is_honest"),
    ("clp_min/features.py", "common_directions", "the last eigenvectors instead of the first",
     "vectors.T.flip(0)[:k]", "vectors.T[:k]", "minimise_eq3"),
    ("clp_min/features.py", "common_directions", "columns instead of rows",
     "flat @ flat.T", "(flat.T @ flat)[: len(flat), : len(flat)]", "minimise_eq3"),
    ("clp_min/features.py", "cross_class_similarity", "dot products instead of cosines",
     "return unit, member.T @ unit, member.sum(0)",
     "return features.double(), member.T @ features.double(), member.sum(0)", "is_the_double_loop"),
    ("clp_min/fisher.py", "fisher_trace", "the sum over the examples, not their mean",
     "FisherTrace(float(per_example.mean()),", "FisherTrace(float(per_example.sum()),",
     "equals_double_loop"),
]


def wrong(edit):
    """Source of the module with the edit in it. ValueError: it does not fit any more."""
    module, function, mistake, old, new, _ = edit
    text = (ROOT / module).read_text()
    if text.count(old) != 1:
        raise ValueError(f"{function}, {mistake}: {text.count(old)} places in {module}")
    return text.replace(old, new)
