"""The main job: a critical learning period in one command (Achille et al. 2018).

A network is trained on blurred images for a while, then on sharp ones for the same number of epochs
whatever came before. If the blur stays long enough, accuracy does not recover. Controls: an
all-sharp run of the same total length (achille_matched) and a learning rate that starts again when
the blur ends (achille_restart). achille_fisher follows the trace of the Fisher information;
achille_fraction asks which share of training may be blurred.
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
from dataclasses import dataclass

from clp_min.deficits import images
from clp_min.fisher import fisher_trace
from clp_min.schedule import Phase, exponential, restart_learning_rate, sweep
from clp_min.seeding import generator
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import log_ratio, rank_correlation, untrained
from clp_min.study.plot import data_sheet, save
from clp_min.train import accuracy, current_data

import achille


@dataclass(frozen=True)
class Config(achille.Config):
    clean: int = 160  # epochs after the deficit, the same after every one
    removals: tuple = (0, 20, 40, 60, 80, 100, 120, 140)  # end of the blur; grid not stated; ours
    # ---- achille_restart
    restart_decay: float = 0.97  # the paper's decay, for the control (ours)
    restart_removals: tuple = (0, 40, 100)  # ours
    # ---- achille_fisher
    fisher_removals: tuple = (0, 40, 100)  # ours
    measure_every: int = 5  # epochs, besides the first ten and the last; ours
    peak: int = 20  # epoch of the normal run's largest trace; ours: an eighth of the clean epochs
    first: int = 5  # epochs that are resolved in steps (1, 2, 4, …); ours
    trough: int = 256  # step of the normal run's smallest trace before the peak; ours
    # ---- achille_fraction
    total: int = 200  # epochs in all; ours
    fractions: tuple = (0.1, 0.25, 0.4, 0.6)  # of them blurred


CONFIGS = achille.configs(
    Config,
    textures=dict(
        clean=30, removals=(0, 5, 10, 20, 40), restart_removals=(0, 20, 40),
        fisher_removals=(0, 20, 40), peak=4, trough=8, total=80,  # seeds 0 to 3
    ),
    fashion_mnist=dict(
        clean=200, removals=(0, 25, 50, 100, 200, 400), restart_decay=0.99,
        restart_removals=(0, 100, 200), fisher_removals=(0, 100, 200), measure_every=25, total=400,
        peak=2, trough=4,  # seeds 0 to 3
    ),
    cifar10=dict(
        clean=50, removals=(0, 20, 60, 150), restart_removals=(0, 60),
        fisher_removals=(0, 60, 150), peak=20, trough=8, total=150,  # seeds 0 to 3
    ),
    evening=dict(
        clean=30, removals=(0, 15, 30), restart_decay=0.92, restart_removals=(0, 30), total=60,
        fisher_removals=(0, 30), trough=64,
        peak=4,  # an eighth of the clean epochs, as at paper scale
    ),
    smoke=dict(
        clean=2, removals=(0, 1, 2), restart_removals=(0, 2), fisher_removals=(0, 2),
        measure_every=1, peak=2, first=2, trough=2, total=4, fractions=(0.25, 0.5, 0.75),
    ),
)
LOST = "points of accuracy lost"


def after(c):
    """The caption of final accuracies."""
    return f"{c.clean} sharp epochs after it"


def final_axes(curves):
    """Final accuracy against the end of the blur."""
    return [Axes("final test accuracy (%)", curves, x="epoch at which the blur is removed")]


def achille_blur(study):
    """Final test accuracy against the epoch at which the blur is removed; as
    many sharp epochs follow.

    Effects: points lost to the longest deficit (paired by seed, against no deficit), least 5; and,
    since no shorter deficit should cost more than a longer one, Spearman's correlation of cost and
    duration, least .5 (a flat beginning passes). Scope: this set, net and schedule; no matched
    total, so ``achille_matched`` beside it.
    """
    c = study.config
    correct = study.results.final("accuracy", [f"blur {d}" for d in c.removals])
    lost = correct[:, :1] - correct  # (seeds, removals)
    effect = Effect(LOST, lost[:, -1], least=achille.DAMAGE, step=study.step())
    order = Effect("rank correlation of cost and duration", rank_correlation(lost), least=0.5)
    undamaged = Effect("%", correct[:, 0])
    return Panel(
        claim="blur that is removed late leaves a permanent loss of accuracy",
        effects=[effect, order], gate=untrained(correct[:, 0], study.classes),
        finding=f"{c.removals[-1]} blurred epochs: {effect} (undamaged: {undamaged}); {order}",
        axes=final_axes([Curve("blurred, then sharp", c.removals, correct)]), caption=after(c),
    )


def achille_matched(study):
    """achille_blur against an all-sharp run of the same TOTAL length:
    over-fitting costs accuracy too.

    Effect: points lost to the longest deficit against that run, least 5. Scope as achille_blur.
    """
    c, results = study.config, study.results
    blurred = results.final("accuracy", [f"blur {d}" for d in c.removals])
    matched = results.at("accuracy", "matched", [d + c.clean for d in c.removals])
    lost = matched[:, -1] - blurred[:, -1]
    effect = Effect(LOST, lost, least=achille.DAMAGE, step=study.step())
    curves = [
        Curve("blurred, then sharp", c.removals, blurred),
        Curve("all sharp, same total epochs", c.removals, matched),
    ]
    return Panel(
        claim="the loss is not that of longer training", effects=[effect],
        gate=untrained(blurred[:, 0], study.classes),
        finding=f"{c.removals[-1]} blurred epochs: {effect} against as many sharp ones",
        axes=final_axes(curves), caption=after(c),
    )


def achille_restart(study):
    """How much of the damage is the low learning rate that is left when the blur ends?

    The published rate decays every epoch, through the deficit too. Effect (damage beyond the
    learning rate): points lost to the longest deficit when the rate is restarted after it, against
    a sharp run of the same total whose rate is restarted at the same epoch, least 1. Scope as
    achille_blur; no conclusion on other schedules of the rate.
    """
    c = study.config
    none, *deficits = c.restart_removals
    curves = []
    for label, key in (("decay goes on", "decay"), ("rate restarted after the blur", "restart"),
                       ("all sharp, rate restarted then", "matched restart")):
        names = [f"decay {none}", *(f"{key} {d}" for d in deficits)]
        curves.append(Curve(label, c.restart_removals, study.results.final("accuracy", names)))
    decayed, restarted, sharp = (curve.values for curve in curves)
    lost, alone, going_on = (
        Effect(LOST, values, least=achille.POINT, step=study.step()) for values in
        (sharp[:, -1] - restarted[:, -1], sharp[:, 0] - restarted[:, -1],
         decayed[:, 0] - decayed[:, -1])
    )
    return Panel(
        claim=f"damage remains when the decayed learning rate (x{c.restart_decay} per epoch) is"
        " restarted",
        effects=[lost], axes=final_axes(curves), gate=untrained(decayed[:, 0], study.classes),
        caption=f"{after(c)}; rate x{c.restart_decay} per epoch",
        finding=f"{deficits[-1]} blurred epochs, rate restarted after them: {lost} against as many"
        f" sharp ones with the same restart, {alone} against the {c.clean} sharp ones alone;"
        f" {going_on} against these with the decay going on",
    )


def achille_fisher(study):
    """Trace of the Fisher information per epoch, on the data the net is trained on (random signs).

    Effects, in logarithms and paired by seed, each least .1 (10 %): the normal run's trace at the
    epoch ``peak`` above that at the step ``trough`` before it (both of the settings, chosen on
    other seeds) and above that of its last epoch; the trace after the longest deficit and its sharp
    epochs above that of the all-sharp run of the same total length; and, since the trace falls
    "even as classification performance improves", points of test accuracy that the normal run gains
    after ``peak``, least 1. The untrained net's trace stands beside it. The first epochs, trained
    once more, are resolved in steps: there a small net's trace may rise and be over.
    """
    c, results = study.config, study.results
    longest = c.fisher_removals[-1]
    total, curves, early = longest + c.clean, [], []
    for d in c.fisher_removals:
        label = f"blurred until epoch {d}" if d else "no deficit"
        curves.append(Curve(label, *results.curve("fisher", f"blur {d}")))
        if d in (0, longest):
            early.append(Curve(label, *results.curve("fisher", f"blur {d}, steps")))
    curves.append(Curve("all sharp", *results.curve("fisher", "matched"), style="dashed"))
    end, matched = (results.at("fisher", name, total) for name in (f"blur {longest}", "matched"))
    untrained_net, peak, last = results.at("fisher", "blur 0", [0, c.peak, c.clean]).T
    trough, rule = results.at("fisher", "blur 0, steps", c.trough), dict(least=achille.TENTH)
    rise = Effect(f"log (epoch {c.peak} / step {c.trough})", log_ratio(peak, trough), **rule)
    fall = Effect(f"log (epoch {c.peak} / last epoch)", log_ratio(peak, last), **rule)
    unit = f"log ratio of Tr F at epoch {total}, deficit / none"
    raised = Effect(unit, log_ratio(end, matched), **rule)
    untouched = Effect(f"log (epoch {c.peak} / untrained net)", log_ratio(peak, untrained_net))
    correct = results.at("accuracy", "blur 0", [c.peak, c.clean])
    learned = Effect(f"points of accuracy after epoch {c.peak}", correct[:, 1] - correct[:, 0],
                     least=achille.POINT, step=study.step())
    spans = [[0, d] for d in c.fisher_removals if d]
    return Panel(
        claim="the Fisher trace rises, then falls, and stays higher after a deficit",
        effects=[rise, fall, raised, learned], headline=raised,
        gate=untrained(correct[:, 1], study.classes),
        finding=f"normal training: {rise}, {fall}, {untouched}, {learned}; after {longest} blurred"
        f" epochs: {raised}",
        axes=[Axes("trace of the Fisher information", curves, log=True, spans=spans),
              Axes("trace in the first epochs", early, "step", log=True, log_x=True),
              Axes("test accuracy (%)", [Curve("no deficit", [c.peak, c.clean], correct)])],
    )


def achille_fraction(study):
    """"If image blurring is not removed within the first 25-40 % of training epochs", performance
    is permanently damaged: the same total, blurred for a share of it.

    Effects: points lost to blur until two fifths of the epochs (against none, paired), least 5; and
    to blur until a quarter of them, within 5: no damage yet. The second is not in the sentence,
    whose first half alone would pass: it is what makes 25 to 40 % a place. Scope: one total; "the
    exact ratio depends" on net and settings, says the sentence itself.
    """
    c, results = study.config, study.results
    shares = [0.0, *c.fractions]
    correct = results.final("accuracy", [f"until {blurred(c, s)} of {c.total}" for s in shares])
    lost = correct[:, :1] - correct
    early, late = (c.fractions[i] for i in (-3, -2))
    effects = [
        Effect(f"points lost to blur until {100 * late:g} %", lost[:, -2], least=achille.DAMAGE,
               step=study.step()),
        Effect(f"points lost to blur until {100 * early:g} %", lost[:, -3], within=achille.DAMAGE,
               step=study.step()),
    ]
    costs = ", ".join(f"{100 * s:g} %: {Effect('points', v)}" for s, v in zip(shares, lost.T))
    curve = Curve("blurred, then sharp", [100 * s for s in shares], correct)
    return Panel(
        "blur must be removed within the first 25 to 40 % of the epochs", effects,
        [Axes("final test accuracy (%)", [curve], x=f"blurred, % of {c.total} epochs")],
        untrained(correct[:, 0], study.classes), f"points lost, by share: {costs}",
    )


def blurred(c, share):
    """Epochs of a share of the total."""
    return round(share * c.total)


PANELS = [achille_blur, achille_matched, achille_restart, achille_fisher, achille_fraction]


def schedules(study):
    """name -> phases. All runs begin from the same weights; what begins alike is trained once."""
    c, blur = study.config, images(study.config.blur)
    plan = {}
    if study.wants(achille_blur, achille_matched, achille_fisher):
        plan = {f"blur {d}": [Phase(d, blur), Phase(c.clean)] for d in c.removals}
        plan["matched"] = [Phase(max(c.removals) + c.clean)]
    if study.wants(achille_restart):
        # None: the set-up decays anyway
        rate = None if c.decay < 1 else exponential(c.lr, c.restart_decay)
        for d in c.restart_removals:
            plan[f"decay {d}"] = [Phase(d, blur, lr=rate), Phase(c.clean, lr=rate)]
            if d:
                again = Phase(c.clean, lr=rate, event=restart_learning_rate)
                plan[f"restart {d}"] = [Phase(d, blur, lr=rate), again]
                plan[f"matched restart {d}"] = [Phase(d, lr=rate), again]
    if study.wants(achille_fraction):
        for d in (blurred(c, share) for share in (0.0, *c.fractions)):
            plan[f"until {d} of {c.total}"] = [Phase(d, blur), Phase(c.total - d)]
    return plan


def trace(run, state, examples):
    """The trace on the images that the net is trained on, the first ``examples`` of them."""
    x, _ = current_data(run.setup, state, slice(examples))
    signs = generator(x.device, run.seed, state.step, "fisher")
    return fisher_trace(state.model, x, "signs", generator=signs).total


def first_steps(study, run, name):
    """Log the trace at the steps 1, 2, 4, … of a schedule's first epochs, trained once more."""
    c, epoch = study.config, -(-len(run.setup.x) // run.setup.batch_size)
    steps = {2**i for i in range((c.first * epoch).bit_length())}
    for step, state, _ in sweep(run.setup, {name: run.schedules[name]}, run.seed, at=steps):
        value = trace(run, state, c.fisher_examples)
        study.log.add(run.seed, [f"{name}, steps"], step, fisher=value)
        if step == max(steps):
            break


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv, achille.OPTIONS)
    c, log, plan = study.config, study.log, schedules(study)
    ends = {d + c.clean for d in c.removals + c.restart_removals} | {c.peak, c.total}
    followed = {"matched"} | {f"blur {d}" for d in c.fisher_removals}
    followed &= set(plan) if study.wants(achille_fisher) else set()
    resolved = followed & {"blur 0", f"blur {c.fisher_removals[-1]}"}  # their first epochs in steps
    for run, epoch, state, names in study.sweep(achille.prepare, plan):
        if epoch in ends:
            log.add(run.seed, names, epoch, accuracy=accuracy(state.model, *run.data.test))
        often = epoch <= 10 or epoch % c.measure_every == 0 or epoch in ends
        if followed & set(names) and often:
            value = trace(run, state, c.fisher_examples)
            log.add(run.seed, followed & set(names), epoch, fisher=value)
        for name in resolved & set(names) if epoch == 0 else ():
            first_steps(study, run, name)
    changes = {"sharp": lambda x: x, "blurred": c.blur}
    sheet = data_sheet(achille.prepare(study, study.seeds[0])[0], changes, study.data)
    save(sheet, study.path(study.data).with_suffix(".png"))
    study.finish()


if __name__ == "__main__":
    command_line(main)
