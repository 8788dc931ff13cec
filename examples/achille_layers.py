"""Where in the network is the Fisher information? Layer by layer, with a deficit and without
(Achille et al.)."""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
from dataclasses import dataclass

import numpy as np

from clp_min.deficits import images
from clp_min.fisher import by_weight_layer, fisher_trace
from clp_min.schedule import Phase
from clp_min.seeding import generator
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line

import achille


@dataclass(frozen=True)
class Config(achille.Config):
    clean: int = 160  # epochs after the deficit; ours, as in the main job
    removals: tuple = (0, 10, 40, 100)  # end of the blur; the second is "sufficiently early"; ours
    largest: int = 5  # layer with the largest share without a deficit; ours: the middle of nine


CONFIGS = achille.configs(
    Config, textures=dict(clean=30, removals=(0, 5, 20, 40), largest=3),  # seeds 0 to 3
    fashion_mnist=dict(clean=200, removals=(0, 10, 100, 200), largest=4),  # the middle
    cifar10=dict(clean=50, removals=(0, 10, 60, 150), largest=3),
    smoke=dict(clean=2, removals=(0, 1, 2)),
)


def achille_layers(study):
    """Share of each layer in the Fisher trace at the end of training.

    BatchNorm's counts with the convolution before it. Effects, in shares: what the final layer has
    more after the longest deficit than without one (paired), least .02; what it has more than any
    other layer then, least .02 (information is "concentrated in the final layer"); what it has more
    after the shortest deficit, within .02 ("unless the deficit is removed sufficiently early");
    and, without a deficit, by how much the layer ``largest`` (of the settings, chosen on other
    seeds) is above the first and above the last, least .02 each. The mean layer is printed.
    """
    c, curves, places = study.config, [], []
    for d in c.removals:
        layers = study.results.final("layers", f"blur {d}")  # (seeds, layers)
        share, numbers = layers / layers.sum(1, keepdims=True), np.arange(1, layers.shape[1] + 1)
        curves.append(Curve(f"blurred until epoch {d}" if d else "no deficit", numbers, share))
        places.append(share @ numbers)
    normal, short, long = (curves[i].values for i in (0, 1, -1))
    largest = min(c.largest, len(numbers))
    effects = [
        Effect(f"of the trace gained by the final layer, {c.removals[-1]} blurred epochs",
               long[:, -1] - normal[:, -1], least=SHARE),
        Effect("more than the largest of the others then",
               long[:, -1] - long[:, :-1].max(1), least=SHARE),
        Effect(f"gained by the final layer, {c.removals[1]} blurred epochs",
               short[:, -1] - normal[:, -1], within=SHARE),
    ]
    effects += [
        Effect(f"share of layer {largest} above the {end} without a deficit",
               normal[:, largest - 1] - of, least=SHARE)
        for end, of in (("first", normal[:, 0]), ("last", normal[:, -1]))
    ]
    said = Effect(f"of {len(numbers)}", places[0]), Effect("layers later", places[-1] - places[0])
    return Panel(
        claim="a long deficit concentrates the Fisher information in the final layer",
        effects=effects,
        finding="; ".join(map(str, effects)) + f"; mean layer {said[0]} without a deficit,"
        f" {said[1]} after the longest",
        axes=[Axes("share of Tr F", curves, "layer")], caption=f"after {c.clean} sharp epochs",
    )


SHARE = 0.02  # of the trace: the least that counts; ours
PANELS = [achille_layers]


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv, achille.OPTIONS)
    c, blur = study.config, images(study.config.blur)
    schedules = {f"blur {d}": [Phase(d, blur), Phase(c.clean)] for d in c.removals}
    ends = {d + c.clean for d in c.removals}
    for run, epoch, state, names in study.sweep(achille.prepare, schedules):
        if epoch in ends:
            signs = generator(study.device, run.seed, epoch, "fisher")
            x = run.setup.x[: c.fisher_examples]
            trace = fisher_trace(state.model, x, "signs", generator=signs)
            layers = by_weight_layer(trace.per_layer, state.model)
            study.log.add(run.seed, names, epoch, layers=layers)
    study.finish()


if __name__ == "__main__":
    command_line(main)
