"""Fisher trace and mutual information while a deficit comes and goes ("Revisiting
critical learning periods", 3.3).

fig1 (ResNet) and fig5 (VGG): blur in the first, second or third period of three. fig2: how the
impairment and the mutual information depend on the number of blurred epochs at the start. Findings
1 to 3 are rows of their own. The quick scale has small stand-ins of the nets.
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
from dataclasses import dataclass, replace

import numpy as np
import torch

from clp_min.deficits import images
from clp_min.fisher import fisher_trace
from clp_min.information import READINGS, binned_mutual_information, label_information
from clp_min.schedule import Phase
from clp_min.seeding import generator
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import least, log_ratio, saturation, untrained
from clp_min.train import accuracy, batch_statistics, current_data, predict

import revisiting


@dataclass(frozen=True)
class Config(revisiting.Config):
    # ---- fig1, fig5: three periods
    period: int = 100
    # ---- fig2: deficit first, then sharp
    durations: tuple = (0, 4, 8, 16, 24, 32, 40, 48, 64, 80)  # not stated; ours
    recovery: int = 160  # sharp epochs after each; not stated; ours
    # ---- places that the rules need, of (resnet, vgg); at paper scale fractions of the schedule
    informed: tuple = (8, 8)  # fig2: epoch of most information, all blurred; a tenth of the longest
    impaired: tuple = (40, 40)  # fig2: duration of the largest impairment; half of the longest
    informed_2: tuple = (110, 110)  # finding 2: the same in period 2; a tenth into it
    highest: tuple = (10, 10)  # finding 2: of the largest trace in period 1; a tenth into it
    # ---- measuring
    measure_every: int = 1  # after the three periods' length; until then every epoch
    fisher_examples: int = 1000  # Monte-Carlo sample, size not stated; ours
    information_examples: int = 10_000  # ours


CONFIGS = revisiting.configs(
    Config,
    quick=dict(
        period=40, durations=(0, 5, 10, 20, 30, 40, 60, 80, 120), recovery=20, measure_every=5,
        fisher_examples=100, information_examples=500,
        informed=(8, 3), impaired=(60, 120), informed_2=(43, 42),  # textures, seeds 0 to 2
        highest=(4, 6),  # textures, seeds 0 to 3, of the ResNet 0 to 2
    ),
    smoke=dict(
        period=2, durations=(0, 1, 2), recovery=2, fisher_examples=20, information_examples=50,
        informed=(1, 1), impaired=(2, 2), informed_2=(3, 3), highest=(1, 1),
    ),
    cifar10=dict(period=100, informed_2=(110, 110), highest=(10, 10)),  # as at paper scale
)
NETS = ("resnet", "vgg")
STATISTICS = 2000  # at most; current examples of BatchNorm's statistics while measuring; ours
SHOWN = "per_logit"  # the reading in the figures and verdicts; all are in the results
OTHERS = ("joint", "pooled", "per_class", "label", "label_shuffled")
TRACE, BITS, LOST = "trace of the Fisher information", "I(X;T), bits", "accuracy lost (points)"
TENFOLD = float(np.log(10))  # ours: what "near zero" is of a trace


def revisiting_fig1a(study):
    """ResNet, deficit in period 1 of 3.

    Effects, means over the deficit's epochs, least .1 (10 %) each: the paper's reading, log (Tr F /
    that of the epoch before the deficit; in period 1: of the first epoch); and log(Tr F / Tr F of
    the normal run at the same epoch). The first proves little in period 1, where normal training
    rises too. Scope: the length of the period.
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
    rise, surge = surges_of(study, net, period)
    clean = Effect("on clean data", log_surge(study, net, period, "fisher_clean"))
    final = study.results.final("accuracy", [normal, name])
    lost = Effect("points of accuracy lost", final[:, 0] - final[:, 1])
    spans = dict(spans=[[(period - 1) * length, period * length]])
    return Panel(
        claim=f"the Fisher trace surges while the deficit lasts (period {period})",
        effects=[rise, surge], gate=untrained(final[:, 0], study.classes),
        finding=f"{rise}; {surge} ({np.exp(surge.mean):.2g} times), {clean}; {lost}",
        printed=VANISHED * (period == 3 and net == "resnet") or PRINTED[net] * (period == 2),
        axes=[
            Axes(TRACE, trace, log=True, **spans), Axes(f"{BITS}, per logit", shown, **spans),
            Axes(f"{BITS}, other readings", readings, **spans, figure="readings"),
        ], caption=net,
    )


def surges_of(study, net, period):
    """[rise within the deficit, height against the normal run] as effects."""
    length, results = study.config.period, study.results
    start = (period - 1) * length
    inside = results.at("fisher", f"{net} period {period}", range(start + 1, start + length + 1))
    before = results.at("fisher", f"{net} period {period}", [max(start, 1)])
    rule, where = dict(least=revisiting.TENTH), f"{net}, period {period}"
    return [
        Effect(f"log (Tr F / before the deficit) ({where})",
               log_ratio(inside, before).mean(1), **rule),
        Effect(f"log ratio of Tr F, deficit / normal ({where})", log_surge(study, net, period),
               **rule),
    ]


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

    Places are each seed's own: of the impairment the first duration within 5 % of its largest, of
    information the most informed epoch, the untrained net's included. Effects for both nets: epochs
    by which the impairment comes later, least 1; epochs that it lies before the end of the grid (a
    maximum there is no peak), least 1; points lost to the duration ``impaired``, least 1; bits
    gained up to the epoch ``informed`` and lost from it to the end, least .1 (these places are of
    the settings, chosen on other seeds). Scope: the places are known to the grid's step alone.
    """
    c, impairment, information = study.config, [], []
    durations, apart, sizes, normal = c.durations, [], [], []
    places = zip(NETS, c.informed, c.impaired)
    for net, informed, impaired in places:
        correct = study.results.final("accuracy", [f"{net} first {d}" for d in durations])
        lost = correct[:, :1] - correct  # (seeds, durations)
        normal.append(correct[:, 0])
        blurred, longest = dict(low=1, high=durations[-1]), f"{net} first {durations[-1]}"
        epochs, bits = study.results.curve(SHOWN, longest, **blurred)
        untrained_bits = study.results.at(f"{SHOWN}_blurred", longest, [0])
        epochs, bits = [0, *epochs], np.concatenate([untrained_bits, bits], 1)
        impairment.append(Curve(net, durations, lost))
        information.append(Curve(net, epochs, bits))
        # where the peaks are
        own = np.array([durations[saturation(row)] for row in lost])
        grid = dict(least=1.0, step=durations[-1] / (len(durations) - 1))
        later = own - np.array(epochs)[bits.argmax(1)]
        apart.append(Effect(f"epochs later ({net})", later, **grid))
        sizes.append(Effect(f"epochs before the grid's end ({net})", durations[-1] - own, **grid))
        # how large they are
        most = lost[:, durations.index(impaired)]
        rule = dict(least=revisiting.POINT, step=study.step())
        sizes.append(Effect(f"points lost to {impaired} epochs ({net})", most, **rule))
        top = bits[:, epochs.index(informed)]
        for unit, bits_more in (("up to", top - bits[:, 0]), ("down from", top - bits[:, -1])):
            unit = f"bits {unit} epoch {informed} ({net})"
            sizes.append(Effect(unit, bits_more, least=revisiting.TENTH))
    return Panel(
        claim="information peaks before the impairment does",
        effects=apart + sizes, gate=untrained(normal, study.classes), headline=least(apart),
        axes=[
            Axes(LOST, impairment, x="epochs of initial deficit"),
            Axes(f"{BITS}, per logit, on blurred data", information, x="epoch (all blurred)"),
        ],
        caption=f"{c.recovery} sharp epochs after it",
        printed="impairment peaks at 42 (VGG-16) and 38 (ResNet-18) epochs, information at 8 and 7",
    )


def revisiting_finding1(study):
    """Finding 1: the Fisher trace surges whenever the deficit comes.

    Effects: fig1a's two for all three periods of both nets, least .1 each. Scope as fig1a.
    """
    pairs = {net: [surges_of(study, net, p) for p in (1, 2, 3)] for net in NETS}
    effects = [effect for rows in pairs.values() for pair in rows for effect in pair]
    x = "where the deficit is"
    claim = "the Fisher trace surges in every period in which the deficit comes"
    axes = [
        Axes(y, [Curve(net, PERIODS, np.stack([pair[i].values for pair in rows], 1))
                 for net, rows in pairs.items()], x, kind="bar")
        for i, y in enumerate(("log(Tr F / before the deficit)", "log(Tr F / normal training)"))
    ]
    return Panel(claim, effects, axes, normal_gate(study), headline=least(effects))


def normal_gate(study):
    """Why normal training shows nothing, if it does not."""
    normal = [study.results.final("accuracy", f"{net} normal") for net in NETS]
    return untrained(normal, study.classes)


def revisiting_finding2(study):
    """Finding 2: in a deficit's period information falls while the Fisher trace goes on rising.

    Period 2 (period 3 is printed). Effects for both nets: bits lost from the epoch ``informed_2``
    (of the settings, chosen on other seeds) to the period's end, least .1, as they are and with the
    logits rescaled to one size, in which their growth cannot show (without that a fall is no
    forgetting); log Tr F gained over them, least .1. Scope: one period's length.
    """
    length, places = study.config.period, study.config.informed_2
    epochs = dict(low=length + 1, high=2 * length)
    keys = {BITS: SHOWN, f"{BITS}, logits rescaled": f"{SHOWN}_rescaled", TRACE: "fisher"}
    curves = {
        y: [Curve(net, *study.results.curve(key, f"{net} period 2", **epochs)) for net in NETS]
        for y, key in keys.items()
    }
    effects, said = [], []
    for net, bits, rescaled, trace, epoch in zip(NETS, *curves.values(), places):
        place = bits.x.index(epoch)
        lost = bits.values[:, place] - bits.values[:, -1]
        gained, rule = log_ratio(trace.values[:, -1], trace.values[:, place]), revisiting.TENTH
        scaled = rescaled.values[:, place] - rescaled.values[:, -1]
        effects += [
            Effect(f"bits lost after epoch {epoch} ({net})", lost, least=rule),
            Effect(f"bits lost after it, logits rescaled ({net})", scaled, least=rule),
            Effect(f"log Tr F gained after it ({net})", gained, least=rule),
        ]
        third = study.results.at(SHOWN, f"{net} period 3", [epoch + length, 3 * length])
        said.append(Effect(f"bits lost in period 3 ({net})", third[:, 0] - third[:, 1]))
    x = "epoch (deficit in all of them)"
    return Panel(
        claim="during a deficit information falls while the Fisher trace rises", effects=effects,
        headline=min(effects, key=lambda effect: effect.mean / (effect.error or 1)),
        gate=normal_gate(study), finding="; ".join(map(str, [*effects, *said])),
        axes=[Axes(y, drawn, x=x, log=y == TRACE) for y, drawn in curves.items()],
    )


def revisiting_finding2_clean(study):
    """Finding 2: with normal data the trace falls to near zero; information rises with any new data
    and "eventually decreases to a certain value larger than 0".

    The run with its deficit in period 2 of 3. Effects for both nets, of the current training data:
    log Tr F lost from the epoch ``highest`` (of the settings, chosen on other seeds; before it the
    trace rises) to the end of period 1, and over period 3 (from its height on the deficit's data
    before it), least log 10; bits gained in the first tenth of each period, on that period's data
    before and after, and lost from there to its end if its data are normal, least .1; bits left at
    the end, least .1. Scope: one period's length.
    """
    length, results = study.config.period, study.results
    tenth = max(length // 10, 1)
    starts, curves, effects = (0, length, 2 * length), {TRACE: [], BITS: []}, []
    for net, highest in zip(NETS, study.config.highest):
        name = f"{net} period 2"
        for y, key in ((TRACE, "fisher"), (BITS, SHOWN)):
            curves[y].append(Curve(net, *results.curve(key, name)))
        places = [highest, *(start + length for start in starts)]
        most, full, changed, end = results.at("fisher", name, places).T
        for period, ratio in ((1, log_ratio(most, full)), (3, log_ratio(changed, end))):
            unit = f"log Tr F lost in period {period} ({net})"
            effects.append(Effect(unit, ratio, least=TENFOLD))
        new = (SHOWN, f"{SHOWN}_blurred", f"{SHOWN}_clean")  # what is new where a period begins
        befores = [results.at(key, name, [t])[:, 0] for key, t in zip(new, starts)]
        met = Curve(f"{net}, the new data first", starts, np.stack(befores, 1), style="points")
        curves[BITS].append(met)
        for period, (start, before) in enumerate(zip(starts, befores), 1):
            early, late = results.at(SHOWN, name, [start + tenth, start + length]).T
            changes = [("gained at the start", early - before), ("lost by the end", early - late)]
            for unit, bits in changes[: 1 if period == 2 else 2]:
                unit = f"bits {unit} of period {period} ({net})"
                effects.append(Effect(unit, bits, least=revisiting.TENTH))
        effects.append(Effect(f"bits left ({net})", late, least=revisiting.TENTH))
    correct = [results.final("accuracy", f"{net} period 2") for net in NETS]
    claim = "with normal data the trace falls to near zero, and information rises, falls and stays"
    spans = [[length, 2 * length]]
    axes = [Axes(y, drawn, log=y == TRACE, spans=spans) for y, drawn in curves.items()]
    return Panel(claim, effects, axes, untrained(correct, study.classes), headline=least(effects),
                 printed=VANISHED, caption="dots: a period's data before they are trained on")


def revisiting_finding3(study):
    """Finding 3: a deficit in period 2 leaves no damage, one in period 1 does.

    Effects for both nets: points lost to period 1, least 1; a quarter of them minus those lost to
    period 2, least .25; and the latter, within 1. (Period 2 is followed by half as many sharp
    epochs as period 1, which works against the claim.) The other half, the peaks, is fig2. Scope:
    periods of the settings' length.
    """
    results, effects, curves = study.results, [], []
    for net in NETS:
        normal = results.final("accuracy", f"{net} normal")
        lost = normal[:, None] - results.final("accuracy", [f"{net} {p}" for p in PERIODS])
        rule = dict(least=revisiting.POINT, step=study.step())
        effects.append(Effect(f"points lost to period 1 ({net})", lost[:, 0], **rule))
        rule = dict(least=revisiting.POINT / 4, step=study.step() / 4)
        spared = lost[:, 0] / 4 - lost[:, 1]
        effects.append(Effect(f"points (1st / 4 - 2nd, {net})", spared, **rule))
        effects.append(Effect(f"points lost to period 2 ({net})", lost[:, 1],
                              within=revisiting.POINT, step=study.step()))
        curves.append(Curve(net, PERIODS, lost))
    claim = "a deficit in period 1 damages, the same in period 2 does not"
    axes = [Axes(LOST, curves, x="where the deficit is", kind="bar")]
    return Panel(claim, effects, axes, normal_gate(study), headline=effects[-1],
                 printed=f"ResNet-18: {PRINTED['resnet']}; VGG-16: {PRINTED['vgg']}")


def revisiting_settings(study):
    """3.3: critical periods and the trace's dynamics "do not rely on any specific learning rate,
    batch size, model structure, and datasets": half and twice the rate and the batch (VGG).

    Effects for each of the four settings: log(Tr F / Tr F of the normal run at that epoch), mean
    over a deficit in period 2, least .1; points lost to a deficit in period 1, least 1, and points
    that it costs more than the one in period 2, least 1. Other nets: fig1, fig5. Scope: this set,
    factors of 2, one at a time.
    """
    surges, damages, normal, effects = [], [], [], []
    rule = dict(least=revisiting.POINT, step=study.step())
    for setting in SETTINGS:
        name = f"vgg {setting}"
        correct = study.results.final("accuracy", [f"{name} {p}" for p in ("normal", *PERIODS[:2])])
        lost = correct[:, :1] - correct[:, 1:]
        normal.append(correct[:, 0])
        surges.append(log_surge(study, name, 2))
        damages.append(lost)
        effects += [
            Effect(f"log ratio of Tr F, deficit / normal ({setting})", surges[-1],
                   least=revisiting.TENTH),
            Effect(f"points lost to period 1 ({setting})", lost[:, 0], **rule),
            Effect(f"points more than period 2 ({setting})", lost[:, 0] - lost[:, 1], **rule),
        ]
    x, damages = "what differs", np.stack(damages, 1)  # (seeds, settings, periods)
    surged = Curve("period 2", list(SETTINGS), np.stack(surges, 1))
    lost = [Curve(p, list(SETTINGS), damages[..., i]) for i, p in enumerate(PERIODS[:2])]
    axes = [Axes("log(Tr F / normal training)", [surged], x, kind="bar"),
            Axes(LOST, lost, x, kind="bar")]
    claim = "the trace surges and the early deficit damages at other rates and batch sizes too"
    return Panel(claim, effects, axes, untrained(normal, study.classes), headline=least(effects))


VANISHED = "after 200 normal epochs of ResNet-18: Tr F 0.0026, test accuracy 93.29 %"
PERIODS = ("period 1", "period 2", "period 3")
PRINTED = {  # of the paper
    "resnet": "normal training 93.28 %, deficit in period 2: 93.26 %",
    "vgg": "normal training 91.34 %, deficit in period 2: 91.46 %",
}
PANELS = [
    revisiting_fig1a, revisiting_fig1b, revisiting_fig1c, revisiting_fig5a, revisiting_fig5b,
    revisiting_fig5c, revisiting_fig2,
    revisiting_finding1, revisiting_finding2, revisiting_finding2_clean, revisiting_finding3,
    revisiting_settings,
]
SETTINGS = {  # field of the set-up, factor
    "rate / 2": ("lr", 0.5), "rate x 2": ("lr", 2), "batch / 2": ("batch_size", 0.5),
    "batch x 2": ("batch_size", 2),
}


def prepare(study, seed, label):
    """(Dataset, Setup) of one net, with one setting changed if the label names one."""
    net, _, setting = label.partition(" ")
    data, setup = revisiting.prepare(study, seed, net)
    if setting:
        field, factor = SETTINGS[setting]
        value = getattr(setup, field)
        setup = replace(setup, **{field: type(value)(value * factor)})
    return data, setup


def periods(c):
    """name -> phases of the three periods."""
    blur, plan = images(c.blur), {"normal": [Phase(3 * c.period)]}
    for p in (1, 2, 3):
        before, after = Phase((p - 1) * c.period), Phase((3 - p) * c.period)
        plan[f"period {p}"] = [before, Phase(c.period, blur), after]
    return plan


def schedules(study):
    """label -> name -> phases."""
    c, plan, plans = study.config, periods(study.config), {}
    if study.wants(revisiting_settings):
        some = {name: plan[name] for name in ("normal", *PERIODS[:2])}
        plans = {f"vgg {setting}": some for setting in SETTINGS}
    if study.panels == [revisiting_settings]:
        return plans
    if study.panels == [revisiting_finding2_clean]:
        plan = {"period 2": plan["period 2"]}
    if study.wants(revisiting_fig2):
        blur = images(c.blur)
        plan |= {f"first {d}": [Phase(d, blur), Phase(c.recovery)] for d in c.durations}
    return dict.fromkeys(NETS, plan) | plans


def measure(study, setup, state):
    """Fisher trace and every reading of I(X;T), bits, on the current training data.

    The shown reading also with logits rescaled to sd 1/2; trace and shown reading on clean data
    too. The label reading stands beside its value for shuffled labels.
    """
    c, n = study.config, min(study.config.information_examples, len(setup.x))
    g = generator(setup.x.device, state.seed, state.epoch, "information")
    (x, y), clean = current_data(setup, state, slice(n)), setup.x[:n]
    model = batch_statistics(state.model, x[:STATISTICS])  # running ones lag behind a change
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


def blurred_bits(study, setup, state):
    """The shown reading on blurred images, of a net that has seen none; an untrained one has the
    statistics of these images, as fig2 trains it on them."""
    x = setup.x[: study.config.information_examples]
    blurred = study.config.blur(x)
    seen = x if state.epoch else blurred
    model = batch_statistics(state.model, seen[:STATISTICS])
    return binned_mutual_information(predict(model, blurred), SHOWN)


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv)
    c, plans = study.config, schedules(study)
    ends = {sum(phase.epochs for phase in phases) for plan in plans.values()
            for phases in plan.values()}
    followed = {f"{net} {name}" for net in NETS for name in ("normal", *PERIODS)}
    followed |= {f"{net} first {c.durations[-1]}" for net in NETS}
    for run, epoch, state, names in study.sweep(prepare, plans):
        values = {"accuracy": accuracy(state.model, *run.data.test)} if epoch in ends else {}
        often = epoch <= 3 * c.period or epoch % c.measure_every == 0
        if run.label not in NETS:  # with another setting: the trace alone, in period 2
            if c.period < epoch <= 2 * c.period:
                values["fisher"] = measure(study, run.setup, state)["fisher"]
        elif followed & set(names) and often:
            values |= measure(study, run.setup, state)
            if epoch in (0, c.period):  # the next epochs may be blurred
                values[f"{SHOWN}_blurred"] = blurred_bits(study, run.setup, state)
        study.log.add(run.seed, names, epoch, **values)
    study.finish()


if __name__ == "__main__":
    command_line(main)
