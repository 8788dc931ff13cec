"""When does a deficit hurt? A window of blur of fixed length at different onsets
(Achille et al. 2018).

After every window the same number of sharp epochs follows; each is compared with an all-sharp run
of the same total length. achille_extent adds windows of half the length.
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
from dataclasses import dataclass

from clp_min.deficits import images
from clp_min.schedule import Phase
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import least, untrained

import achille


@dataclass(frozen=True)
class Config(achille.Config):
    window: int = 40  # epochs of blur; not stated; as in a public replication
    onsets: tuple = (0, 10, 20, 40, 60, 80, 100, 120)  # grid not stated; ours
    clean: int = 160  # sharp epochs after the window; not stated; ours, as in the main job
    peak: int = 0  # onset that costs most, of those in the first fifth of all epochs; ours


CONFIGS = achille.configs(
    Config, textures=dict(window=20, onsets=(0, 5, 10, 20, 40, 60), clean=60),
    fashion_mnist=dict(window=100, onsets=(0, 50, 100, 200, 300), clean=200),
    cifar10=dict(window=60, onsets=(0, 50, 100), clean=50),
    evening=dict(window=15, onsets=(0, 5, 15, 30), clean=30),
    smoke=dict(window=1, onsets=(0, 1), clean=2),
)
ONSET = "epoch at which the window begins"


def achille_window(study):
    """Accuracy lost to a window of blur against its onset.

    "Sensitivity peaks in the first fifth" of training, here of the epochs of the longest run.
    Effects: points that the window at the onset ``peak`` (of the settings: the first one)
    costs more than each one that begins after the first fifth (paired by seed), the latest first,
    least 1 each. The rate is the settings': where it decays, a late window is also one at a low
    rate. Scope: this set, net, rate and length of window.
    """
    c, lost = study.config, lost_to_windows(study, "window")  # (seeds, onsets)
    rule, most = dict(least=achille.POINT, step=study.step()), lost[:, c.onsets.index(c.peak)]
    fifth = (c.onsets[-1] + c.window + c.clean) / 5
    effects = [
        Effect(f"points more than the window at {t}", most - lost[:, i], **rule)
        for i, t in reversed(list(enumerate(c.onsets))) if t >= fifth
    ]
    costs = ", ".join(f"onset {t}: {Effect('points', v)}" for t, v in zip(c.onsets, lost.T))
    y = f"accuracy lost to {c.window} blurred epochs (points)"
    return Panel(
        claim="a deficit hurts most in the first fifth of training", effects=effects,
        headline=least(effects), gate=sharp_gate(study),
        finding=f"{c.window} epochs from {c.peak} on cost {least(effects)} (loss by onset:"
        f" {costs})",
        axes=[Axes(y, [Curve("against all sharp, same total", c.onsets, lost)], x=ONSET,
                   spans=[[0, fifth]], shaded="the first fifth")],
        caption=f"{c.clean} sharp epochs after every window",
    )


def sharp_gate(study):
    """Why the all-sharp run shows nothing, if it does not."""
    return untrained(study.results.final("accuracy", "sharp"), study.classes)


def achille_extent(study):
    """"The extent of the damage depends on when and how long" a deficit lasts.

    Effects, paired by seed, least 1 each: points that a window costs more than one of half its
    length, mean over the onsets (how long); that the half window costs more at the first onset than
    at the last one (when; of the whole window achille_window says it); and how much more the other
    half costs at the first onset than at the last ("when" and "how long" do not just add up). Scope
    as achille_window.
    """
    c, onsets = study.config, study.config.onsets
    lost = {name: lost_to_windows(study, name) for name in ("window", "half")}
    longer, rule = lost["window"] - lost["half"], dict(least=achille.POINT, step=study.step())
    effects = [
        Effect("points more than half as long a window", longer.mean(1), **rule),
        Effect(f"points that a half window costs more at {onsets[0]} than at {onsets[-1]}",
               lost["half"][:, 0] - lost["half"][:, -1], **rule),
        Effect(f"points that the other half costs more at {onsets[0]} than at {onsets[-1]}",
               longer[:, 0] - longer[:, -1], **rule),
    ]
    labels = {name: f"{length} blurred epochs" for name, length in lengths(c).items()}
    return Panel(
        "damage depends on when a deficit comes and how long it lasts", effects,
        [Axes("accuracy lost (points)", [Curve(labels[k], onsets, lost[k]) for k in lost], ONSET)],
        sharp_gate(study), caption=f"{c.clean} sharp epochs after every window",
    )


def lost_to_windows(study, name):
    """(seeds, onsets): accuracy lost to each window, against as many sharp epochs."""
    c, results = study.config, study.results
    sharp = results.at("accuracy", "sharp", [t + lengths(c)[name] + c.clean for t in c.onsets])
    return sharp - results.final("accuracy", [f"{name} {t}" for t in c.onsets])


def lengths(c):
    """Epochs of the windows, by their names."""
    return {"window": c.window, "half": max(c.window // 2, 1)}


PANELS = [achille_window, achille_extent]


def schedules(study):
    """name -> phases; what begins alike is trained once."""
    c, blur = study.config, images(study.config.blur)
    names = lengths(c) if study.wants(achille_extent) else ["window"]
    plan = {
        f"{name} {t}": [Phase(t), Phase(lengths(c)[name], blur), Phase(c.clean)]
        for name in names for t in c.onsets
    }
    return plan | {"sharp": [Phase(max(c.onsets) + c.window + c.clean)]}


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv, achille.OPTIONS)
    c = study.config
    ends = {t + length + c.clean for t in c.onsets for length in lengths(c).values()}
    achille.accuracy_at(study, schedules(study), ends)
    study.finish()


if __name__ == "__main__":
    command_line(main)
