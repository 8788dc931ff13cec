"""Where in the network is the Fisher information? Layer by layer, with a deficit and without
(Achille et al.)."""

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
    clean: int = 160  # epochs after the deficit
    removals: tuple = (0, 40, 100)  # end of the blur; ours
    largest: int = 5  # layer with the largest share without a deficit; ours: the middle of nine


CONFIGS = achille.configs(
    Config, textures=dict(clean=30, removals=(0, 20, 40), largest=3),  # seeds 0 to 3
    fashion_mnist=dict(clean=200, removals=(0, 100, 200), largest=4),  # the middle
    cifar10=dict(clean=50, removals=(0, 60, 150), largest=3),
    smoke=dict(clean=2, removals=(0, 2)),
)


def achille_layers(study):
    """Share of each layer in the Fisher trace at the end of training.

    BatchNorm's counts with the convolution before it. The place of a distribution over L layers is
    its mean layer, 1 .. L. Effects: layers by which that place is later after the longest deficit
    than without one (paired), least .1; and, since without a deficit the largest share should be
    neither the first layer's nor the last's, the share of the layer ``largest`` (of the settings,
    chosen on other seeds) minus each of theirs, least .02. Scope: the mean layer may move while the
    last one keeps its share.
    """
    c, curves, places = study.config, [], []
    for d in c.removals:
        layers = study.results.final("layers", f"blur {d}")  # (seeds, layers)
        share, numbers = layers / layers.sum(1, keepdims=True), np.arange(1, layers.shape[1] + 1)
        curves.append(Curve(f"blurred until epoch {d}" if d else "no deficit", numbers, share))
        places.append(share @ numbers)
    later = places[-1] - places[0]
    effect, depth = Effect("layers later than without deficit", later, least=0.1), len(numbers)
    share, largest = curves[0].values, min(c.largest, depth)
    above = [
        Effect(f"share of layer {largest} above the {end}", share[:, largest - 1] - of, least=0.02)
        for end, of in (("first", share[:, 0]), ("last", share[:, -1]))
    ]
    normal = Effect(f"of {depth}", places[0])
    return Panel(
        claim="a long deficit moves the Fisher information to the last layers",
        effects=[effect, *above],
        finding=f"mean layer {normal} without a deficit, {effect} after {c.removals[-1]} blurred"
        f" epochs; {above[0]}, {above[1]}",
        axes=[Axes("share of Tr F", curves, "layer")], caption=f"after {c.clean} sharp epochs",
    )


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
