"""Which deficits hurt? Blur against vertical flip, permuted labels and white noise; and blur as a poor pre-training (Achille et al.
2018)."""

import achille
import common
import running
import verdicts
from clp_min.deficits import images, labels, noise_images, permute_labels, vertical_flip
from clp_min.record import headline
from clp_min.schedule import Phase, restart_learning_rate, restart_optimizer
from clp_min.train import accuracy


def achille_deficits(run):
    """Accuracy lost to each deficit of the same length at the start of training, the same number of clean epochs after it.

    Drops are paired by seed, against the clean run of the same total length. Verdict: "reproduced" if blur costs more than the costliest
    other deficit by > 3 standard errors over >= 3 seeds (paired), and in the mean more than three times as much.
    """
    config, log = run.config, run.log
    total = config.kind_epochs + config.kind_clean
    lost = [[log.at(s, "clean", total, "accuracy") - log.last(s, kind, "accuracy") for kind in KINDS] for s in run.seeds]
    drops = [headline([row[i] for row in lost], "points") for i in range(len(KINDS))]
    worst = max(range(1, len(KINDS)), key=lambda i: drops[i]["mean"])
    effect = headline([row[0] - row[worst] for row in lost], f"points more than {list(KINDS)[worst]}, the costliest other")
    verdict = verdicts.verdict(effect)
    if verdict == "reproduced" and drops[0]["mean"] < 3 * drops[worst]["mean"]:
        verdict = "not reproduced"
    costs = ", ".join(f"{kind} {verdicts.say(drop)}" for kind, drop in zip(KINDS, drops))
    return {
        "claim": "low-level damage hurts; high-level changes and deprivation do little",
        "headline": effect,
        "verdict": verdict,
        "finding": f"{config.kind_epochs} epochs cost: {costs}",
        "series": [
            {
                "label": "drop",
                "x": list(KINDS),
                "y": f"accuracy lost to {config.kind_epochs} epochs of the deficit (points)",
                "values": lost,
            }
        ],
        "figure": {"x": "deficit", "kind": "bar"},
    }


def achille_pretraining(run):
    """Pre-training on blurred images, then an ordinary training run (fresh optimizer, learning rate from its start) on sharp ones.

    Verdict: "reproduced" if the longest pre-training ends below no pre-training by > 3 standard errors over >= 3 seeds (paired).
    """
    config, log = run.config, run.log
    names = [f"pretraining {d}" if d else "clean" for d in config.pretraining]
    values = [[log.at(s, name, d + config.kind_clean, "accuracy") for name, d in zip(names, config.pretraining)] for s in run.seeds]
    effects = [headline([row[0] - row[i] for row in values], "points lost") for i in range(len(names))]
    costs = ", ".join(f"{d} epochs {verdicts.say(effect)}" for d, effect in list(zip(config.pretraining, effects))[1:])
    return {
        "claim": "pre-training on blurred images is worse than none",
        "headline": effects[-1],
        "verdict": verdicts.verdict(effects[-1]),
        "finding": f"against a random start, pre-training on blurred images for {costs}",
        "series": [
            {
                "label": f"{config.kind_clean} sharp epochs after pre-training",
                "x": config.pretraining,
                "y": "final test accuracy (%)",
                "values": values,
            }
        ],
        "figure": {"x": "epochs of pre-training on blurred images"},
    }


PANELS = [achille_deficits, achille_pretraining]
KINDS = {  # deficit -> what it does to (config, number of classes)
    "blur": lambda config, classes: images(config.blur),
    "vertical flip": lambda config, classes: images(vertical_flip),
    "permuted labels": lambda config, classes: labels(permute_labels, [(k + 1) % classes for k in range(classes)]),
    "white noise": lambda config, classes: noise_images,
}


def all_schedules(run, classes):
    """name -> phases."""
    config = run.config
    deficits = {kind: make(config, classes) for kind, make in KINDS.items()}
    plan = {"clean": [Phase(config.kind_epochs + config.kind_clean)]}
    if run.wants(achille_deficits):
        plan |= {kind: [Phase(config.kind_epochs, deficit), Phase(config.kind_clean)] for kind, deficit in deficits.items()}

    def new_training_run(setup, state):
        restart_optimizer(setup, state)
        restart_learning_rate(setup, state)

    if run.wants(achille_pretraining):
        plan |= {
            f"pretraining {d}": [Phase(d, deficits["blur"]), Phase(config.kind_clean, event=new_training_run)]
            for d in config.pretraining
            if d
        }
    return plan


def main(argv=None):
    run = common.start(__file__, __doc__, PANELS, achille.CONFIGS, argv, achille.OPTIONS)
    config = run.config
    data, setup = achille.prepare(run, 0)
    plan = all_schedules(run, data.classes)
    ends = {d + config.kind_clean for d in (config.kind_epochs, *config.pretraining)}
    running.announce(run, {"run": (setup, plan)})
    for seed, label, schedules in running.units(run):
        data, setup = achille.prepare(run, seed)
        for epoch, state, names in running.trained(run, seed, label, setup, schedules):
            if epoch in ends:
                run.log.add(seed, names, epoch, accuracy=accuracy(state.model, *data.test))
    common.finish(run)


if __name__ == "__main__":
    common.call(main)
