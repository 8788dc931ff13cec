"""Fisher trace and mutual information while a deficit comes and goes ("Revisiting critical learning periods", section 3.3).

fig1 (ResNet) and fig5 (VGG): blur in the first, second or third period of three. fig2: how the impairment and the mutual information depend
on the number of blurred epochs at the start. Findings 1 to 3 are rows of their own. The quick scale has small stand-ins of the nets.
"""

import common
import numpy as np
import revisiting
import torch
import running
import verdicts
from clp_min.deficits import images
from clp_min.fisher import fisher_trace
from clp_min.information import READINGS, binned_mutual_information, label_information
from clp_min.record import headline
from clp_min.schedule import Phase
from clp_min.seeding import generator
from clp_min.train import accuracy, current_data, predict

SHOWN = "per_logit"  # the reading in the figures and verdicts; all are in the results


def _curves(run, name, keys):
    """Series (label, values) of a schedule: points after epoch 0, one row a seed."""
    points = [p for p in run.log.series(run.seeds[0], name, keys[0])[0] if p > 0]
    return points, {key: [[run.log.at(s, name, p, key) for p in points] for s in run.seeds] for key in keys}


def _surge(run, net, period, key="fisher"):
    """Mean over the deficit's period of log(Tr F with the deficit / Tr F of the normal run at the same epoch), per seed.

    key "fisher_clean": Tr F of the same nets on clean data, where the size of blurred inputs does not enter."""
    epochs = range((period - 1) * run.config.period + 1, period * run.config.period + 1)
    at = run.log.at
    return [
        np.mean([verdicts.log_ratio(at(s, f"{net} period {period}", e, key), at(s, f"{net} normal", e, "fisher")) for e in epochs])
        for s in run.seeds
    ]


def _period_panel(run, net, period):
    """Fisher trace and information with the deficit in one period; what fig1a-c and fig5a-c share."""
    length, name = run.config.period, f"{net} period {period}"
    measures = ["fisher", "fisher_clean", SHOWN, SHOWN + "_clean", SHOWN + "_rescaled", *READINGS[:4], "label", "label_shuffled"]
    points, curves = _curves(run, name, list(dict.fromkeys(measures)))
    _, normal = _curves(run, f"{net} normal", ["fisher", SHOWN])
    surge = headline(_surge(run, net, period), "log ratio of Tr F, deficit / normal")
    clean = headline(_surge(run, net, period, "fisher_clean"), "")
    lost = headline(
        [run.log.last(s, f"{net} normal", "accuracy") - run.log.last(s, name, "accuracy") for s in run.seeds], "points of accuracy lost"
    )
    bits, labels = "I(X;T), bits", {"fisher": "on the training data as they are", "fisher_clean": "on clean data"}
    series = [{"label": labels[key], "x": points, "y": "Tr F", "values": curves[key]} for key in labels]
    series.append({"label": "normal training", "x": points, "y": "Tr F", "values": normal["fisher"]})
    series += [
        {"label": key.replace("_", " "), "x": points, "y": bits, "values": curves[key]} for key in curves if not key.startswith("fisher")
    ]
    return {
        "claim": f"the Fisher trace surges while the deficit lasts (period {period})",
        "headline": surge,
        "verdict": verdicts.verdict(surge),
        "series": series,
        "finding": f"Tr F is {np.exp(surge['mean']):.2g} times the normal run's over the deficit (log {verdicts.say(surge)}), on clean data"
        f" {np.exp(clean['mean']):.2g} times (log {clean['mean']:.2f} ± {clean['standard_error']:.2f}); final accuracy: {verdicts.say(lost)};"
        f" ceiling of the joint reading log2 N = {np.log2(run.information_examples):.2f} bits",
        "figure": {"x": "epoch", "log": ["Tr F"], "spans": [[(period - 1) * length, period * length]]},
    }


def revisiting_fig1a(run):
    """ResNet, deficit in period 1 of 3. Verdict: mean log ratio of Tr F to the normal run's over the deficit > 3 standard errors, >= 3
    seeds."""
    return _period_panel(run, "resnet", 1)


def revisiting_fig1b(run):
    """ResNet, deficit in period 2 of 3. Rule of fig1a."""
    return _period_panel(run, "resnet", 2)


def revisiting_fig1c(run):
    """ResNet, deficit in period 3 of 3. Rule of fig1a."""
    return _period_panel(run, "resnet", 3)


def revisiting_fig5a(run):
    """VGG, deficit in period 1 of 3. Rule of fig1a."""
    return _period_panel(run, "vgg", 1)


def revisiting_fig5b(run):
    """VGG, deficit in period 2 of 3. Rule of fig1a."""
    return _period_panel(run, "vgg", 2)


def revisiting_fig5c(run):
    """VGG, deficit in period 3 of 3. Rule of fig1a."""
    return _period_panel(run, "vgg", 3)


def _impairment(run, net):
    """Accuracy lost to d initial deficit epochs, (seeds x durations); the same number of sharp epochs follows each."""
    return [
        [run.log.last(s, f"{net} first 0", "accuracy") - run.log.last(s, f"{net} first {d}", "accuracy") for d in run.config.durations]
        for s in run.seeds
    ]


def _blurred_information(run, net):
    """(epochs, information per seed) on the deficit's data while the longest deficit lasts."""
    points, longest = run.log.series(run.seeds[0], f"{net} first {run.config.durations[-1]}", SHOWN)[0], run.config.durations[-1]
    epochs = [p for p in points if 0 < p <= longest]
    return epochs, [[run.log.at(s, f"{net} first {longest}", e, SHOWN) for e in epochs] for s in run.seeds]


def revisiting_fig2(run):
    """Impairment of the final accuracy, and mutual information, against the number of initial deficit epochs.

    The impairment's peak is the smallest duration within one standard error of its maximum. Verdict: "reproduced" if for both nets that peak
    is inside the grid and the maximum > 3 standard errors above 0, information rises to a peak and falls from it, each by > 3 standard
    errors, and the two places are > 3 standard errors (each at least half an epoch) apart, information first, over >= 3 seeds. Places for
    the last comparison are each seed's own: its most informed epoch, its first duration within 5 % of its largest impairment. A maximum at
    the edge of the grid is no peak: "not reproduced", and said.
    """
    series, effects, earned, words = [], [], [], []
    for net in ("vgg", "resnet"):
        durations, lost, (epochs, values) = run.config.durations, _impairment(run, net), _blurred_information(run, net)
        largest = max((headline(column, "points at most") for column in zip(*lost)), key=lambda e: e["mean"])
        place, (best, rise, fall) = verdicts.first_near_largest(lost), verdicts.peak(values)
        rise, fall = headline(rise, "bits up to it"), headline(fall, "bits down from it")
        earned.append(0 < place < len(durations) - 1 and verdicts.joint_verdict([largest, rise, fall]) == "reproduced")
        own = [durations[verdicts.saturation(row)] - epochs[bits.index(max(bits))] for row, bits in zip(lost, values)]
        apart = headline(own, "epochs later")
        effects.append(apart | {"standard_error": max(apart["standard_error"], 0.5)})
        edge = " (the edge of the grid)" if place == len(durations) - 1 else ""
        words.append(
            f"{net}: information largest at epoch {epochs[best]} ({verdicts.say(rise)}, {verdicts.say(fall)}), the impairment"
            f" ({verdicts.say(largest)}) at {durations[place]}{edge}; {verdicts.say(apart)}"
        )
        series.append({"label": net, "x": durations, "y": "accuracy lost (points)", "values": lost})
        series.append({"label": net, "x": epochs, "y": f"I(X;T) on blurred data, {SHOWN} (bits)", "values": values})
    verdict = verdicts.joint_verdict(effects)
    return {
        "claim": "information peaks before the impairment does",
        "headline": min(effects, key=lambda e: e["mean"]),
        "verdict": "not reproduced" if verdict in ("reproduced", "reversed") and not all(earned) else verdict,
        "finding": "; ".join(words),
        "series": series,
        "figure": {"x": "epochs of initial deficit"},
    }


def revisiting_finding1(run):
    """Finding 1: the Fisher trace surges whenever the deficit comes. Verdict: rule of fig1a for all three periods of both nets at once."""
    rows = {f"{net} {p}": _surge(run, net, p) for net in ("resnet", "vgg") for p in (1, 2, 3)}
    effects = {name: headline(row, "log ratio of Tr F") for name, row in rows.items()}
    return {
        "claim": "the Fisher trace surges in every period in which the deficit comes",
        "headline": min(effects.values(), key=lambda e: e["mean"]),
        "verdict": verdicts.joint_verdict(list(effects.values())),
        "finding": "log ratio to normal training: "
        + ", ".join(f"{k}: {v['mean']:.2f} ± {v['standard_error']:.2f}" for k, v in effects.items()),
        "series": [
            {
                "label": "net, period of the deficit",
                "x": list(rows),
                "y": "log(Tr F / Tr F of normal training)",
                "values": [list(v) for v in zip(*rows.values())],
            }
        ],
        "figure": {"x": "net, period of the deficit", "kind": "bar"},
    }


def revisiting_finding2(run):
    """Finding 2: in a deficit's period information begins to fall while the Fisher trace goes on rising (period 2, both nets).

    Per seed: information lost from its peak in the period (chosen on the other seeds) to the period's end, and log Tr F gained over the
    same epochs. Verdict: "reproduced" if both are > 3 standard errors above 0 over >= 3 seeds for both nets. Beside it: information with
    the logits rescaled to one size, in which growth of the logits cannot show.
    """
    length, effects, words, series = run.config.period, [], [], []
    epochs = list(range(length + 1, 2 * length + 1))
    for net in ("resnet", "vgg"):
        name, rows = f"{net} period 2", {"lost": [], "gained": []}
        curves = [[run.log.at(s, name, e, SHOWN) for e in epochs] for s in run.seeds]
        for s, bits, peak in zip(run.seeds, curves, verdicts.leave_one_out_peaks(curves)):
            rows["lost"].append(bits[peak] - bits[-1])
            rows["gained"].append(
                verdicts.log_ratio(run.log.at(s, name, epochs[-1], "fisher"), run.log.at(s, name, epochs[peak], "fisher"))
            )
        lost, gained = headline(rows["lost"], "bits lost after the peak"), headline(rows["gained"], "log Tr F gained")
        effects += [lost, gained]
        words.append(f"{net}: {verdicts.say(lost)}, {verdicts.say(gained)}")
        for key, y in ((SHOWN, "I(X;T), bits"), (SHOWN + "_rescaled", "I(X;T), bits, logits rescaled"), ("fisher", "Tr F")):
            series.append({"label": net, "x": epochs, "y": y, "values": [[run.log.at(s, name, e, key) for e in epochs] for s in run.seeds]})
    return {
        "claim": "during a deficit information falls while the Fisher trace rises",
        "headline": min(effects, key=lambda e: e["mean"] / (e["standard_error"] or 1)),
        "verdict": verdicts.joint_verdict(effects),
        "finding": "; ".join(words),
        "series": series,
        "figure": {"x": "epoch (deficit in all of them)", "log": ["Tr F"]},
    }


def revisiting_finding3(run):
    """Finding 3: a deficit in period 2 leaves no damage, one in period 1 does.

    Verdict: "reproduced" if for both nets accuracy is lost to period 1, and less than a quarter as much to period 2, each (the loss; a quarter
    of it minus the loss to period 2) > 3 standard errors over >= 3 seeds. (Period 2 is followed by half as many sharp epochs as period 1, which works against the claim.) The other half, the peaks, is fig2.
    """
    rows, effects = {}, []
    for net in ("resnet", "vgg"):
        lost = {
            p: [run.log.last(s, f"{net} normal", "accuracy") - run.log.last(s, f"{net} period {p}", "accuracy") for s in run.seeds]
            for p in (1, 2, 3)
        }
        rows |= {f"{net} {p}": values for p, values in lost.items()}
        effects += [
            headline(lost[1], "points lost to period 1"),
            headline([a / 4 - b for a, b in zip(lost[1], lost[2])], "points (1st / 4 - 2nd)"),
        ]
    costs = ", ".join(f"{name}: {verdicts.say(headline(row, 'points'))}" for name, row in rows.items())
    return {
        "claim": "a deficit in period 1 damages, the same in period 2 does not",
        "headline": min(effects, key=lambda e: e["mean"]),
        "verdict": verdicts.joint_verdict(effects),
        "finding": f"lost to a deficit in period 1, 2, 3: {costs}",
        "series": [{"label": "drop", "x": list(rows), "y": "accuracy lost (points)", "values": [list(v) for v in zip(*rows.values())]}],
        "figure": {"x": "net, period of the deficit", "kind": "bar"},
    }


PANELS = [
    revisiting_fig1a,
    revisiting_fig1b,
    revisiting_fig1c,
    revisiting_fig5a,
    revisiting_fig5b,
    revisiting_fig5c,
    revisiting_fig2,
    revisiting_finding1,
    revisiting_finding2,
    revisiting_finding3,
]


def all_schedules(run):
    """name -> phases, for one net."""
    config, blur = run.config, images(run.config.blur)
    plan = {"normal": [Phase(3 * config.period)]}
    for p in (1, 2, 3):
        plan[f"period {p}"] = [Phase((p - 1) * config.period), Phase(config.period, blur), Phase((3 - p) * config.period)]
    if run.wants(revisiting_fig2):
        plan |= {f"first {d}": [Phase(d, blur), Phase(config.recovery)] for d in config.durations}
    return plan


def measure(run, setup, state):
    """Fisher trace and every reading of I(X;T), bits, on the current training data; the shown reading also with logits rescaled to
    sd 1/2; trace and shown reading on clean data too. The label reading stands beside its value for shuffled labels."""
    config, model, n = run.config, state.model, run.information_examples
    g = generator(setup.x.device, state.seed, state.epoch, "information")
    (x, y), clean = current_data(setup, state, slice(n)), setup.x[:n]
    t = predict(model, x)
    values = {reading: binned_mutual_information(t, reading, y) for reading in READINGS[:4]}
    values["label"], values["label_shuffled"] = label_information(t, y, g)
    values[f"{SHOWN}_rescaled"] = binned_mutual_information(0.5 * t / t.std(), SHOWN)
    values["fisher"] = fisher_trace(model, x[: config.fisher_examples], "signs", generator=g).total
    if torch.equal(x, clean):
        return values | {f"{key}_clean": values[key] for key in (SHOWN, "fisher")}
    values[f"{SHOWN}_clean"] = binned_mutual_information(predict(model, clean), SHOWN)
    values["fisher_clean"] = fisher_trace(model, clean[: config.fisher_examples], "signs", generator=g).total
    return values


def main(argv=None):
    run = common.start(__file__, __doc__, PANELS, revisiting.CONFIGS, argv)
    config, plan = run.config, all_schedules(run)
    ends = {sum(phase.epochs for phase in phases) for phases in plan.values()}
    nets = {net: getattr(config, net) for net in ("resnet", "vgg")}
    dataset = revisiting.prepare(run, 0)
    run.information_examples = min(config.information_examples, len(dataset.train[0]))
    running.announce(run, {net: (revisiting.make_setup(run, dataset, make, config.lr), plan) for net, make in nets.items()})
    followed = {"normal", "period 1", "period 2", "period 3", f"first {config.durations[-1]}"}
    for seed, net, schedules in running.units(run):
        dataset = revisiting.prepare(run, seed)
        setup = revisiting.make_setup(run, dataset, nets[net], config.lr)
        for epoch, state, names in running.trained(run, seed, net, setup, schedules):
            values = {"accuracy": accuracy(state.model, *dataset.test)} if epoch in ends else {}
            if followed & set(names) and (epoch <= 3 * config.period or epoch % config.measure_every == 0):
                values |= measure(run, setup, state)
            run.log.add(seed, [f"{net} {name}" for name in names], epoch, **values)
    common.finish(run)


if __name__ == "__main__":
    common.call(main)
