"""Is the damage permanent, or only slow to heal? (Achille et al. 2018: "even given an unlimited
training budget".)

One number of clean epochs would always say "permanent" where the learning rate decays: it freezes
what is not repaired by then. So the rate is constant here, and the gap to a net that never saw a
deficit is followed over R, 2R, 4R, 8R clean epochs: gap(T) = c / T^alpha. Blur at the start, the
same blur later, a vertical flip at the start. And is early blur good for anything: accuracy on
blurred test images.
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
from dataclasses import dataclass

import numpy as np

from clp_min.deficits import images, vertical_flip
from clp_min.schedule import Phase
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import untrained
from clp_min.train import accuracy

import achille


@dataclass(frozen=True)
class Config(achille.Config):
    """No panel of the paper; lengths are ours."""

    decay: float = 1.0  # a constant rate
    length: int = 100  # epochs of the deficit
    late: int = 100  # epoch at which the late one begins
    clean: int = 40  # R; measured after R, 2R, 4R, 8R


CONFIGS = achille.configs(
    Config, textures=dict(length=40, late=40, clean=15),
    fashion_mnist=dict(length=200, late=200, clean=100), cifar10=dict(length=60, late=60, clean=25),
    # four effects need eight seeds; fewer images, so that it ends in three hours
    evening=dict(seeds=8, train_size=5_000, decay=1.0, length=30, late=30, clean=5),
    smoke=dict(length=1, late=1, clean=1),
)
ARMS = ("blur first", "blur later", "flip first")
SLOW = 0.25  # a gap that falls so slowly takes 16 times the epochs to halve; ours


def budgets(c):
    return [c.clean * 2**i for i in range(4)]


def start_of(c, arm):
    """Epoch at which an arm's deficit ends."""
    return c.length + c.late * (arm == "blur later")


def gaps(study, key="accuracy"):
    """arm -> (seeds, budgets): points behind the net without a deficit at the same epoch."""
    c, results, found = study.config, study.results, {}
    for arm in ARMS:
        ends = [start_of(c, arm) + t for t in budgets(c)]
        found[arm] = results.at(key, "none", ends) - results.at(key, arm, ends)
    return found


def exponent(gap, budgets):
    """alpha (seeds,) of gap(T) = c / T^alpha, by least squares in logarithms; a gap below a tenth
    of a point counts as one."""
    x = np.log(budgets) - np.log(budgets).mean()
    return -np.log(np.maximum(gap, achille.TENTH)) @ x / (x @ x)


def achille_recovery(study):
    """The gap after a deficit against the number of clean epochs, at a constant rate.

    Effects: points that early blur is behind after the longest budget, least 5 (a number of epochs
    "beyond which performance will never recover"); its exponent, within .25: the gap neither closes
    nor grows; and points that it is behind more than late blur, and than an early flip, least 1
    each. Points that early blur gains on blurred test images are printed. Scope: this set, net and
    rate; eight times a budget is not an unlimited one.
    """
    c, found, blurred = study.config, gaps(study), gaps(study, "accuracy_blurred")
    last, rule = budgets(c)[-1], dict(step=study.step())
    first, later, flip = (found[arm][:, -1] for arm in ARMS)
    alpha = exponent(found[ARMS[0]], budgets(c))
    effects = [
        Effect(f"points behind after {last} clean epochs", first, least=achille.DAMAGE, **rule),
        Effect("alpha, gap = c / epochs^alpha", alpha, within=SLOW),
        Effect("points more than the same blur later", first - later, least=achille.POINT, **rule),
        Effect("points more than an early flip", first - flip, least=achille.POINT, **rule),
    ]
    good = Effect(f"points behind on blurred test images after {c.clean} clean epochs",
                  blurred[ARMS[0]][:, 0])
    told = ", ".join(f"{arm} {Effect('points', gap[:, -1])}" for arm, gap in found.items())
    axes = [
        Axes(f"{where} (points behind)", [Curve(arm, budgets(c), v) for arm, v in rows.items()],
             x="clean epochs after the deficit", log_x=True)
        for where, rows in (("sharp test images", found), ("blurred test images", blurred))
    ]
    sharp = study.results.at("accuracy", "none", [start_of(c, ARMS[1]) + last])
    return Panel(
        "the damage of early blur is permanent", effects, axes, untrained(sharp, study.classes),
        "; ".join(map(str, [*effects, good, f"after {last}: {told}"])),
        caption=f"{c.length} epochs of each deficit, constant rate",
    )


PANELS = [achille_recovery]


def schedules(c):
    """name -> phases; what begins alike is trained once."""
    longest, blur = budgets(c)[-1], images(c.blur)
    return {
        "none": [Phase(c.length + c.late + longest)],
        "blur first": [Phase(c.length, blur), Phase(longest)],
        "blur later": [Phase(c.late), Phase(c.length, blur), Phase(longest)],
        "flip first": [Phase(c.length, images(vertical_flip)), Phase(longest)],
    }


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv, achille.OPTIONS)
    c = study.config
    ends = {arm: {start_of(c, arm) + t for t in budgets(c)} for arm in ARMS}
    ends["none"] = set().union(*ends.values())
    for run, epoch, state, names in study.sweep(achille.prepare, schedules(c)):
        names = [name for name in names if epoch in ends[name]]
        if names:
            x, y = run.data.test
            study.log.add(run.seed, names, epoch, accuracy=accuracy(state.model, x, y),
                          accuracy_blurred=accuracy(state.model, c.blur(x), y))
    study.finish()


if __name__ == "__main__":
    command_line(main)
