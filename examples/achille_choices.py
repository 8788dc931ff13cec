"""Which of our choices carries the critical period? (Achille et al. 2018; the question is ours)

The synthetic set and the net of the quick scale were chosen because they show the effect. Here
every choice that could carry it is changed, one at a time: normalisation, clipping, learning rate,
width, number of images, cues of the set, weight decay, and the epochs whose accuracy is read. With
each: a blur at the start, the same blur later, and a vertical flip at the start.
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from clp_min import models
from clp_min.deficits import images, vertical_flip
from clp_min.schedule import Phase
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import least, untrained
from clp_min.train import accuracy

import achille


@dataclass(frozen=True)
class Config(achille.Config):
    window: int = 40  # epochs of each deficit; all lengths are ours
    late: int = 120  # epoch at which the late blur begins
    clean: int = 160  # sharp epochs after each
    wide: Callable = partial(models.all_cnn, width=192)  # the net, twice as wide
    other_clip: float = 2.0  # norm at which gradients are clipped, if the settings do not clip
    other_decay: float = 5e-4  # weight decay, if the settings have none
    shares: tuple = (0.5,)  # of the images as set; more than all there are not
    last: int = 3  # epochs whose mean is the other reading


BOTH = dict(
    wide=partial(models.small_cnn, init=models.kaiming_normal, widths=(32, 64, 128)),
    shares=(0.5, 2),
)
DEEP = dict(wide=partial(models.mlp, hidden=(256,) * 6, init=models.kaiming_normal))
CONFIGS = achille.configs(
    Config, textures=BOTH | dict(window=20, late=40, clean=30),
    fashion_mnist=BOTH | DEEP | dict(window=100, late=200, clean=200),
    cifar10=BOTH | dict(window=60, late=100, clean=50),
    smoke=dict(window=1, late=2, clean=1, last=1),
)
AS_SET, MEAN = "as set", "mean of the last epochs"
DEFICITS = ("early", "late", "flip")


def changed(c, data, n=0):
    """choice -> (settings of the script, settings of the data) that it changes; the first changes
    none. n: training images as set."""
    decay = "no weight decay" if c.weight_decay else f"weight decay {c.other_decay}"
    settings = {
        AS_SET: {},
        "no BatchNorm" if c.norm else "BatchNorm": dict(norm=not c.norm),
        "no clipping" if c.clip else "clipping": dict(clip=None if c.clip else c.other_clip),
        "rate x0.5": dict(lr=c.lr / 2), "rate x2": dict(lr=c.lr * 2),
        "width x2": dict(net=c.wide),
        decay: dict(weight_decay=0.0 if c.weight_decay else c.other_decay),
    }
    sets = {f"images x{share}": dict(size=round(share * n)) for share in c.shares}
    if data == "textures":  # its cues: .3 and .8
        sets |= {"coarse cue x0.75": dict(coarse=0.225), "coarse cue x1.25": dict(coarse=0.375)}
        sets |= {"fine cue x0.75": dict(fine=0.6), "fine cue x1.25": dict(fine=1.0)}
    return {k: (v, {}) for k, v in settings.items()} | {k: ({}, v) for k, v in sets.items()}


def achille_choices(study):
    """Does blur at the start cost accuracy whatever is chosen?

    Effects, one for each choice: points lost to it, against as many sharp epochs, least 5, which is
    achille_blur's. Those whose word is another one decide whether there is an effect at all. Scope:
    one choice at a time, around one setting; the choices that hold are no proof for two at once.
    """
    return by_choice(study, "an early blur costs accuracy", "points lost to the blur",
                     achille.DAMAGE, lambda early, late, flip: early)


def achille_choices_late(study):
    """The same of early against late: points that the blur at the start costs more than
    the late one, least 1, as in achille_window."""
    return by_choice(study, "an early blur costs more than a late one", "points more than late",
                     achille.POINT, lambda early, late, flip: early - late)


def achille_choices_flip(study):
    """The same of blur against vertical flip, both at the start: points that the blur costs more,
    least 3, as in achille_deficits."""
    return by_choice(study, "blur costs more than a flip", "points more than the flip", 3.0,
                     lambda early, late, flip: early - flip)


def by_choice(study, claim, unit, smallest, contrast):
    """A panel with one effect for each choice; contrast: (early, late, flip) -> (seeds,)."""
    names = list(changed(study.config, study.data))
    readings = [(name, name, 1) for name in names] + [(MEAN, AS_SET, study.config.last)]
    effects = [
        Effect(f"{unit}, {label}", contrast(*(lost(study, name, d, last) for d in DEFICITS)),
               least=smallest, step=study.step())
        for label, name, last in readings
    ]
    labels, values = [label for label, _, _ in readings], [effect.values for effect in effects]
    words = {}
    for label, effect in zip(labels, effects):
        words.setdefault(effect.word(len(effects)), []).append(label)
    words.pop("reproduced", None)
    failing = "; ".join(f"{word} with {', '.join(found)}" for word, found in words.items())
    moved = [Effect(label, v - values[0]) for label, v in zip(labels, values)]
    most = max(moved, key=lambda effect: abs(effect.mean))
    sharp = [study.results.final("accuracy", f"{name} sharp") for name in names]
    return Panel(
        f"{claim}, whatever is chosen", effects, headline=least(effects),
        gate=untrained(min(sharp, key=np.mean), study.classes),
        finding=f"{effects[0]}; {most.unit} changes it most, by {Effect('points', most.values)};"
        f" smallest: {least(effects)}; {failing or 'holds with every choice'}",
        axes=[Axes(unit, [Curve("mean and standard error", labels, np.stack(values, 1))],
                   x="what was changed", kind="bar")],
        caption=f"{study.config.window} epochs of deficit, {study.config.clean} after it",
    )


PANELS = [achille_choices, achille_choices_late, achille_choices_flip]


def end(c, name):
    """Epoch at which a schedule with a deficit ends."""
    return (c.late if name == "late" else 0) + c.window + c.clean


def lost(study, choice, name, last):
    """(seeds,): points lost to a deficit against as many sharp epochs; mean over the ``last``
    ones."""
    ends = [end(study.config, name) - i for i in range(last)]
    sharp, damaged = (
        study.results.at("accuracy", f"{choice} {run}", ends) for run in ("sharp", name)
    )
    return (sharp - damaged).mean(1)


def schedules(c):
    """name -> phases, for every choice the same."""
    blur, flip, clean = images(c.blur), images(vertical_flip), Phase(c.clean)
    return {
        "early": [Phase(c.window, blur), clean],
        "late": [Phase(c.late), Phase(c.window, blur), clean],
        "flip": [Phase(c.window, flip), clean],
        "sharp": [Phase(end(c, "late"))],
    }


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv)
    c = study.config
    choices = changed(c, study.data, len(achille.prepare(study, study.seeds[0])[1].x))

    def prepare(study, seed, label):
        settings, data = choices[label]
        return achille.prepare(study, seed, replace(c, **settings), **data)

    ends = {end(c, name) - i for name in DEFICITS for i in range(c.last)}
    for run, epoch, state, names in study.sweep(prepare, dict.fromkeys(choices, schedules(c))):
        if epoch in ends:
            study.log.add(run.seed, names, epoch, accuracy=accuracy(state.model, *run.data.test))
    study.finish()


if __name__ == "__main__":
    command_line(main)
