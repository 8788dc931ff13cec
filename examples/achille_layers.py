"""Where in the network is the Fisher information? Layer by layer, without and with a deficit (Achille et al. 2018)."""

import achille
import common
import running
import verdicts
from clp_min.deficits import images
from clp_min.fisher import fisher_trace
from clp_min.record import headline
from clp_min.schedule import Phase
from clp_min.seeding import generator


def achille_layers(run):
    """Share of each layer with weights in the Fisher trace (BatchNorm's counts with the convolution before it) at the end of training.

    The place of a distribution over L layers is its mean layer, 1 .. L. Verdict: "reproduced" if that place is later after the longest
    deficit than without one by > 3 standard errors over >= 3 seeds (paired by seed), and without a deficit the layer with the largest share
    (mean over seeds) is neither the first nor the last.
    """
    config, log = run.config, run.log
    series, places = [], {}
    for d in config.fisher_removals:
        values = []
        for seed in run.seeds:
            layers = log.last(seed, f"blur {d}", "layers")
            values.append([v / sum(layers.values()) for v in layers.values()])
        numbers = list(range(1, len(values[0]) + 1))
        places[d] = [sum(k * v for k, v in zip(numbers, row)) for row in values]
        series.append(
            {"label": "no deficit" if d == 0 else f"blurred until epoch {d}", "x": numbers, "y": "share of Tr F", "values": values}
        )
    longest = config.fisher_removals[-1]
    effect = headline([a - b for a, b in zip(places[longest], places[0])], "layers later than without deficit")
    verdict = verdicts.verdict(effect)
    means = [sum(column) for column in zip(*series[0]["values"])]
    largest = means.index(max(means)) + 1
    if verdict == "reproduced" and largest in (1, len(means)):
        verdict = "not reproduced"
    return {
        "claim": "a long deficit moves the Fisher information to the last layers",
        "headline": effect,
        "verdict": verdict,
        "finding": f"mean layer {verdicts.say(headline(places[0], f'of {len(means)}'))} without a deficit (largest share: layer {largest}), {verdicts.say(effect)} after {longest} blurred epochs",
        "series": series,
        "figure": {"x": "layer (input to output)"},
    }


PANELS = [achille_layers]


def by_weight_layer(per_layer, model):
    """Sum the trace of layers without a weight matrix (BatchNorm) into the convolution or Linear layer before them."""
    matrices = {name for name, module in model.named_modules() if getattr(module, "weight", None) is not None and module.weight.dim() > 1}
    sums, last = {}, None
    for name, value in per_layer.items():
        last = name if name in matrices else last
        sums[last] = sums.get(last, 0.0) + value
    return sums


def main(argv=None):
    run = common.start(__file__, __doc__, PANELS, achille.CONFIGS, argv, achille.OPTIONS)
    config, blur = run.config, images(run.config.blur)
    plan = {f"blur {d}": [Phase(d, blur), Phase(config.clean)] for d in config.fisher_removals}
    ends = {d + config.clean for d in config.fisher_removals}
    running.announce(run, {"run": (achille.prepare(run, 0)[1], plan)})
    for seed, label, schedules in running.units(run):
        data, setup = achille.prepare(run, seed)
        for epoch, state, names in running.trained(run, seed, label, setup, schedules):
            if epoch in ends:
                x = setup.x[: config.fisher_examples]
                trace = fisher_trace(state.model, x, "signs", generator=generator(x.device, seed, epoch, "fisher"))
                run.log.add(seed, names, epoch, layers=by_weight_layer(trace.per_layer, state.model))
    common.finish(run)


if __name__ == "__main__":
    common.call(main)
