"""Fisher trace and mutual information while a deficit comes and goes ("Revisiting
critical learning periods", 3.3).

fig1 (ResNet) and fig5 (VGG): blur in the first, second or third period of three. fig2: how the
impairment and the mutual information depend on the number of blurred epochs at the start. Findings
1 to 3 are rows of their own. The quick scale has small stand-ins of the nets.
"""

from dataclasses import dataclass

import numpy as np
import torch

from clp_min.deficits import images
from clp_min.fisher import fisher_trace
from clp_min.information import READINGS, binned_mutual_information, label_information
from clp_min.schedule import Phase
from clp_min.seeding import generator
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import first_near_largest, least, leave_one_out_peaks
from clp_min.study.panel import log_ratio, peak, saturation
from clp_min.train import accuracy, current_data, predict

import revisiting


@dataclass(frozen=True)
class Config(revisiting.Config):
    # ---- fig1, fig5: three periods
    period: int = 100
    # ---- fig2: deficit first, then sharp
    durations: tuple = (0, 4, 8, 16, 24, 32, 40, 48, 64, 80)  # not stated; ours
    recovery: int = 160  # sharp epochs after each; not stated; ours
    # ---- measuring
    measure_every: int = 1  # after the three periods' length; until then every epoch
    fisher_examples: int = 1000  # Monte-Carlo sample, size not stated; ours
    information_examples: int = 10_000  # ours


CONFIGS = revisiting.configs(
    Config,
    quick=dict(
        period=15, durations=(0, 5, 20, 80, 120), recovery=20, measure_every=5,
        fisher_examples=100, information_examples=500,
    ),
    smoke=dict(
        period=2, durations=(0, 1, 2), recovery=2, fisher_examples=20, information_examples=50
    ),
)
NETS = ("resnet", "vgg")
SHOWN = "per_logit"  # the reading in the figures and verdicts; all are in the results
OTHERS = ("joint", "pooled", "per_class", "label", "label_shuffled")
TRACE, BITS, LOST = "trace of the Fisher information", "I(X;T), bits", "accuracy lost (points)"


def revisiting_fig1a(study):
    """ResNet, deficit in period 1 of 3.

    Reproduced if log(Tr F / Tr F of the normal run at the same epoch), mean over
    the deficit, is positive.
    """
    return period_panel(study, "resnet", 1)


def revisiting_fig1b(study):
    """ResNet, deficit in period 2 of 3. Rule of fig1a."""
    return period_panel(study, "resnet", 2)


def revisiting_fig1c(study):
    """ResNet, deficit in period 3 of 3. Rule of fig1a."""
    return period_panel(study, "resnet", 3)


def revisiting_fig5a(study):
    """VGG, deficit in period 1 of 3. Rule of fig1a."""
    return period_panel(study, "vgg", 1)


def revisiting_fig5b(study):
    """VGG, deficit in period 2 of 3. Rule of fig1a."""
    return period_panel(study, "vgg", 2)


def revisiting_fig5c(study):
    """VGG, deficit in period 3 of 3. Rule of fig1a."""
    return period_panel(study, "vgg", 3)


def period_panel(study, net, period):
    """Fisher trace and information with the deficit in one period: what fig1 and fig5 share."""
    length, name, normal = study.config.period, f"{net} period {period}", f"{net} normal"

    def curve(label, key, run=name, **style):
        return Curve(label, *study.results.curve(key, run, low=1), **style)

    trace = [
        curve("training data", "fisher"), curve("clean data", "fisher_clean"),
        curve("normal training", "fisher", normal, style="dashed"),
    ]
    shown = [
        curve("training data", SHOWN), curve("clean data", f"{SHOWN}_clean"),
        curve("logits rescaled to one size", f"{SHOWN}_rescaled"),
        curve("normal training", SHOWN, normal, style="dashed"),
    ]
    readings = [curve(key.replace("_", " "), key) for key in OTHERS]
    surge = Effect("log ratio of Tr F, deficit / normal", log_surge(study, net, period))
    clean = Effect("on clean data", log_surge(study, net, period, "fisher_clean"))
    final = study.results.final("accuracy", [normal, name])
    lost = Effect("points of accuracy lost", final[:, 0] - final[:, 1])
    spans = dict(spans=[[(period - 1) * length, period * length]])
    return Panel(
        claim=f"the Fisher trace surges while the deficit lasts (period {period})", effects=[surge],
        finding=f"{surge} ({np.exp(surge.mean):.2g} times), {clean}; {lost}",
        axes=[
            Axes(TRACE, trace, log=True, **spans), Axes(f"{BITS}, per logit", shown, **spans),
            Axes(f"{BITS}, other readings", readings, **spans, figure="readings"),
        ], caption=net,
    )


def log_surge(study, net, period, key="fisher"):
    """(seeds,): mean over the deficit's period of log(Tr F / Tr F of the normal run at that epoch).

    key "fisher_clean": Tr F of the same nets on clean data, where the size of blurred
    inputs does not enter.
    """
    length, results = study.config.period, study.results
    epochs = range((period - 1) * length + 1, period * length + 1)
    with_deficit = results.at(key, f"{net} period {period}", epochs)
    return log_ratio(with_deficit, results.at("fisher", f"{net} normal", epochs)).mean(1)


def revisiting_fig2(study):
    """Impairment of the final accuracy, and information, against the number
    of first deficit epochs.

    The impairment's peak is the smallest duration within one standard error of its maximum.
    Reproduced if for both nets information peaks (each seed's most informed epoch) before the
    impairment does (each seed's first duration within 5 % of its largest; errors count as half an
    epoch at least), the largest impairment is positive, information rises to its peak and falls
    from it, and the impairment's peak lies inside the grid: a maximum at its edge is no peak.
    """
    durations, impairment, information = study.config.durations, [], []
    apart, curved, inside = [], [], []
    for net in ("vgg", "resnet"):
        correct = study.results.final("accuracy", [f"{net} first {d}" for d in durations])
        lost = correct[:, :1] - correct  # (seeds, durations)
        blurred = dict(low=1, high=durations[-1])
        epochs, bits = study.results.curve(SHOWN, f"{net} first {durations[-1]}", **blurred)
        impairment.append(Curve(net, durations, lost))
        information.append(Curve(net, epochs, bits))
        # how large both peaks are
        _, rise, fall = peak(bits)
        largest = max(lost.T, key=np.mean)
        units = "points at most", "bits up to its peak", "bits down from it"
        curved += [Effect(f"{u} ({net})", v) for u, v in zip(units, (largest, rise, fall))]
        # where they are
        inside.append(0 < first_near_largest(lost) < len(durations) - 1)
        own = [durations[saturation(row)] - epochs[b.argmax()] for row, b in zip(lost, bits)]
        apart.append(Effect(f"epochs later ({net})", own, resolution=0.5))
    return Panel(
        claim="information peaks before the impairment does",
        effects=apart + curved, gate=all(inside), headline=least(apart),
        axes=[
            Axes(LOST, impairment, x="epochs of initial deficit"),
            Axes(f"{BITS}, per logit, on blurred data", information, x="epoch (all blurred)"),
        ],
        caption=f"{study.config.recovery} sharp epochs after it; gate: peaks inside the grid",
    )


def revisiting_finding1(study):
    """Finding 1: the Fisher trace surges whenever the deficit comes.

    Rule of fig1a for all three periods of both nets at once.
    """
    surges = {net: [log_surge(study, net, p) for p in (1, 2, 3)] for net in NETS}
    effects = [
        Effect(f"log ratio of Tr F ({net}, period {p})", surge)
        for net, rows in surges.items()
        for p, surge in enumerate(rows, 1)
    ]
    curves = [Curve(net, PERIODS, np.transpose(rows)) for net, rows in surges.items()]
    y, x = "log(Tr F / Tr F of normal training)", "where the deficit is"
    claim = "the Fisher trace surges in every period in which the deficit comes"
    return Panel(claim, effects, [Axes(y, curves, x, kind="bar")], headline=least(effects))


def revisiting_finding2(study):
    """Finding 2: in a deficit's period information falls while the Fisher trace goes on rising.

    Period 2. Per seed: information lost from its peak in the period (chosen on the other seeds)
    to the period's end, and log Tr F gained over the same epochs. Reproduced if both are
    positive for both nets. Beside it: information with the logits rescaled to one size, in which
    their growth cannot show.
    """
    length = study.config.period
    epochs = dict(low=length + 1, high=2 * length)
    keys = {BITS: SHOWN, f"{BITS}, logits rescaled": f"{SHOWN}_rescaled", TRACE: "fisher"}
    curves = {
        y: [Curve(net, *study.results.curve(key, f"{net} period 2", **epochs)) for net in NETS]
        for y, key in keys.items()
    }
    effects = []
    for net, bits, trace in zip(NETS, curves[BITS], curves[TRACE]):
        seeds, places = np.arange(len(bits.values)), leave_one_out_peaks(bits.values)
        lost = bits.values[seeds, places] - bits.values[:, -1]
        gained = log_ratio(trace.values[:, -1], trace.values[seeds, places])
        effects.append(Effect(f"bits lost after the peak ({net})", lost))
        effects.append(Effect(f"log Tr F gained ({net})", gained))
    x = "epoch (deficit in all of them)"
    return Panel(
        claim="during a deficit information falls while the Fisher trace rises", effects=effects,
        headline=min(effects, key=lambda effect: effect.mean / (effect.error or 1)),
        axes=[Axes(y, drawn, x=x, log=y == TRACE) for y, drawn in curves.items()],
    )


def revisiting_finding3(study):
    """Finding 3: a deficit in period 2 leaves no damage, one in period 1 does.

    Reproduced if for both nets accuracy is lost to period 1, and less than a quarter as much to
    period 2. (Period 2 is followed by half as many sharp epochs as period 1, which works against
    the claim.) The other half, the peaks, is fig2.
    """
    results, effects, curves = study.results, [], []
    for net in NETS:
        normal = results.final("accuracy", f"{net} normal")
        lost = normal[:, None] - results.final("accuracy", [f"{net} {p}" for p in PERIODS])
        effects.append(Effect(f"points lost to period 1 ({net})", lost[:, 0]))
        effects.append(Effect(f"points (1st / 4 - 2nd, {net})", lost[:, 0] / 4 - lost[:, 1]))
        curves.append(Curve(net, PERIODS, lost))
    claim = "a deficit in period 1 damages, the same in period 2 does not"
    axes = [Axes(LOST, curves, x="where the deficit is", kind="bar")]
    return Panel(claim, effects, axes, headline=least(effects))


PERIODS = ("period 1", "period 2", "period 3")
PANELS = [
    revisiting_fig1a, revisiting_fig1b, revisiting_fig1c, revisiting_fig5a, revisiting_fig5b,
    revisiting_fig5c, revisiting_fig2,
    revisiting_finding1, revisiting_finding2, revisiting_finding3,
]


def schedules(study):
    """name -> phases, for one net."""
    c, blur = study.config, images(study.config.blur)
    plan = {"normal": [Phase(3 * c.period)]}
    for p in (1, 2, 3):
        before, after = Phase((p - 1) * c.period), Phase((3 - p) * c.period)
        plan[f"period {p}"] = [before, Phase(c.period, blur), after]
    if study.wants(revisiting_fig2):
        plan |= {f"first {d}": [Phase(d, blur), Phase(c.recovery)] for d in c.durations}
    return plan


def measure(study, setup, state):
    """Fisher trace and every reading of I(X;T), bits, on the current training data.

    The shown reading also with logits rescaled to sd 1/2; trace and shown reading on clean data
    too. The label reading stands beside its value for shuffled labels.
    """
    c, model = study.config, state.model
    n = min(c.information_examples, len(setup.x))
    g = generator(setup.x.device, state.seed, state.epoch, "information")
    (x, y), clean = current_data(setup, state, slice(n)), setup.x[:n]
    t = predict(model, x)
    # as the data are
    values = {reading: binned_mutual_information(t, reading, y) for reading in READINGS[:4]}
    values["label"], values["label_shuffled"] = label_information(t, y, g)
    values[f"{SHOWN}_rescaled"] = binned_mutual_information(0.5 * t / t.std(), SHOWN)
    values["fisher"] = fisher_trace(model, x[: c.fisher_examples], "signs", generator=g).total
    # as they would be without a deficit
    if torch.equal(x, clean):
        return values | {f"{key}_clean": values[key] for key in (SHOWN, "fisher")}
    values[f"{SHOWN}_clean"] = binned_mutual_information(predict(model, clean), SHOWN)
    trace = fisher_trace(model, clean[: c.fisher_examples], "signs", generator=g)
    return values | {"fisher_clean": trace.total}


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv)
    c, plan = study.config, schedules(study)
    ends = {sum(phase.epochs for phase in phases) for phases in plan.values()}
    followed = {f"{net} {name}" for net in NETS for name in ("normal", *PERIODS)}
    followed |= {f"{net} first {c.durations[-1]}" for net in NETS}
    plans = {net: plan for net in NETS}
    for run, epoch, state, names in study.sweep(revisiting.prepare, plans):
        values = {"accuracy": accuracy(state.model, *run.data.test)} if epoch in ends else {}
        often = epoch <= 3 * c.period or epoch % c.measure_every == 0
        if followed & set(names) and often:
            values |= measure(study, run.setup, state)
        study.log.add(run.seed, names, epoch, **values)
    study.finish()


if __name__ == "__main__":
    command_line(main)
