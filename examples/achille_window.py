"""When does a deficit hurt? A window of blur of fixed length at different onsets
(Achille et al. 2018).

After every window the same number of sharp epochs follows; each is compared with an all-sharp run
of the same total length.
"""

from dataclasses import dataclass

import numpy as np

from clp_min.deficits import images
from clp_min.schedule import Phase
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import least, untrained

import achille


@dataclass(frozen=True)
class Config(achille.Config):
    window: int = 40  # epochs of blur
    onsets: tuple = (0, 20, 40, 60, 80, 100, 120)  # grid not stated; ours
    clean: int = 160  # sharp epochs after the window


CONFIGS = achille.configs(
    Config, textures=dict(window=20, onsets=(0, 10, 20, 40), clean=60),
    fashion_mnist=dict(window=100, onsets=(0, 100, 200, 300), clean=200),
    cifar10=dict(window=60, onsets=(0, 50, 100), clean=50),
    smoke=dict(window=1, onsets=(0, 1), clean=2),
)
ONSET = "epoch at which the window begins"


def achille_window(study):
    """Accuracy lost to a window of blur against its onset.

    Effects: points that the first window costs more than each later one (paired by seed), the
    latest first, least 1 each. Scope: this set, net, rate and length of window.
    """
    c, lost = study.config, lost_to_windows(study)  # (seeds, onsets)
    rule = dict(least=achille.POINT, step=study.step())
    effects = [
        Effect(f"points more than the window at {t}", lost[:, 0] - lost[:, i], **rule)
        for i, t in reversed(list(enumerate(c.onsets))[1:])
    ]
    costs = ", ".join(f"onset {t}: {Effect('points', v)}" for t, v in zip(c.onsets, lost.T))
    y = f"accuracy lost to {c.window} blurred epochs (points)"
    return Panel(
        claim="a deficit hurts most when it comes first", effects=effects, headline=least(effects),
        gate=sharp_gate(study),
        finding=f"the first {c.window} epochs cost {least(effects)} (loss by onset: {costs})",
        axes=[Axes(y, [Curve("against all sharp, same total", c.onsets, lost)], x=ONSET)],
        caption=f"{c.clean} sharp epochs after every window",
    )


def revisiting_section5(study):
    """"Revisiting critical learning periods", section 5: an earlier epoch always matters more.

    Effects: points that each window costs more than the next one (paired), least .5 each. Scope:
    onsets of this grid; the rate and net are those of achille_window.
    """
    c, lost = study.config, lost_to_windows(study)
    steps = -np.diff(lost, axis=1)  # (seeds, pairs)
    pairs = [f"{a} against {b}" for a, b in zip(c.onsets, c.onsets[1:])]
    rule = dict(least=achille.POINT / 2, step=study.step())
    effects = [Effect(f"points, onset {pair}", step, **rule) for pair, step in zip(pairs, steps.T)]
    y = "accuracy lost, minus that of the next onset (points)"
    return Panel(
        claim="an earlier window always costs more than a later one", effects=effects,
        headline=least(effects), gate=sharp_gate(study),
        axes=[Axes(y, [Curve("difference", pairs, steps)], x="onset of the window", kind="bar")],
        caption=f"{c.window} blurred epochs, {c.clean} sharp ones after them",
    )


def sharp_gate(study):
    """Why the all-sharp run shows nothing, if it does not."""
    return untrained(study.results.final("accuracy", "sharp"), study.classes)


def lost_to_windows(study):
    """(seeds, onsets): accuracy lost to each window, against as many sharp epochs."""
    c, results = study.config, study.results
    sharp = results.at("accuracy", "sharp", [t + c.window + c.clean for t in c.onsets])
    return sharp - results.final("accuracy", [f"window {t}" for t in c.onsets])


PANELS = [achille_window, revisiting_section5]


def schedules(c):
    """name -> phases; what begins alike is trained once."""
    blur = images(c.blur)
    plan = {f"window {t}": [Phase(t), Phase(c.window, blur), Phase(c.clean)] for t in c.onsets}
    return plan | {"sharp": [Phase(max(c.onsets) + c.window + c.clean)]}


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv, achille.OPTIONS)
    ends = {t + study.config.window + study.config.clean for t in study.config.onsets}
    achille.accuracy_at(study, schedules(study.config), ends)
    study.finish()


if __name__ == "__main__":
    command_line(main)
