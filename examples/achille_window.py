"""When does a deficit hurt? A window of blur of fixed length at different onsets (Achille et al. 2018, sensitivity).

After every window the same number of sharp epochs follows; each is compared with an all-sharp run of the same total length.
"""

import achille
import common
import running
import verdicts
from clp_min.deficits import images
from clp_min.record import headline
from clp_min.schedule import Phase
from clp_min.train import accuracy


def lost_to_windows(run):
    """Accuracy lost to the window at each onset, against the all-sharp run of the same total length: (seeds x onsets)."""
    config, log = run.config, run.log
    return [
        [
            log.at(s, "sharp", t + config.window + config.window_clean, "accuracy") - log.last(s, f"window {t}", "accuracy")
            for t in config.onsets
        ]
        for s in run.seeds
    ]


def achille_window(run):
    """Final accuracy against the onset of a deficit window of fixed length; sharp before it, the same number of sharp epochs after it.

    Verdict: "reproduced" if the first window costs more than the costliest later one by > 3 standard errors over >= 3 seeds (paired; drops
    are against the all-sharp run of the same total length).
    """
    config, lost = run.config, lost_to_windows(run)
    costliest = max(range(1, len(config.onsets)), key=lambda i: sum(row[i] for row in lost))
    effect = headline([row[0] - row[costliest] for row in lost], "points more than the costliest later window")
    costs = ", ".join(f"onset {t}: {verdicts.say(headline([row[i] for row in lost], 'points'))}" for i, t in enumerate(config.onsets))
    return {
        "claim": "a deficit hurts most when it comes first",
        "headline": effect,
        "verdict": verdicts.verdict(effect),
        "finding": f"the first {config.window} epochs cost {verdicts.say(effect)} (loss by onset: {costs})",
        "series": [
            {
                "label": "drop against all sharp, same total",
                "x": config.onsets,
                "y": f"accuracy lost to {config.window} blurred epochs (points)",
                "values": lost,
            }
        ],
        "figure": {"x": "epoch at which the window begins"},
    }


def revisiting_section5(run):
    """ "Revisiting critical learning periods", section 5: an earlier epoch always matters more than a later one.

    Verdict: "reproduced" if each window costs more than the next one by > 3 standard errors over >= 3 seeds (paired), for every pair of neighbours.
    """
    config, lost = run.config, lost_to_windows(run)
    steps = [headline([row[i] - row[i + 1] for row in lost], "points") for i in range(len(config.onsets) - 1)]
    said = ", ".join(f"{a} against {b}: {verdicts.say(step)}" for a, b, step in zip(config.onsets, config.onsets[1:], steps))
    return {
        "claim": "an earlier window always costs more than a later one",
        "headline": min(steps, key=lambda e: e["mean"]),
        "verdict": verdicts.joint_verdict(steps),
        "finding": f"onset {said}",
        "series": [
            {
                "label": "onset against the next",
                "x": config.onsets[:-1],
                "y": "accuracy lost, minus that of the next onset (points)",
                "values": [[row[i] - row[i + 1] for i in range(len(row) - 1)] for row in lost],
            }
        ],
        "figure": {"x": "epoch at which the window begins"},
    }


PANELS = [achille_window, revisiting_section5]


def main(argv=None):
    run = common.start(__file__, __doc__, PANELS, achille.CONFIGS, argv, achille.OPTIONS)
    config, blur = run.config, images(run.config.blur)
    plan = {f"window {t}": [Phase(t), Phase(config.window, blur), Phase(config.window_clean)] for t in config.onsets}
    ends = {t + config.window + config.window_clean for t in config.onsets}
    plan["sharp"] = [Phase(max(ends))]
    running.announce(run, {"run": (achille.prepare(run, 0)[1], plan)})
    for seed, label, schedules in running.units(run):
        data, setup = achille.prepare(run, seed)
        for epoch, state, names in running.trained(run, seed, label, setup, schedules):
            if epoch in ends:
                run.log.add(seed, names, epoch, accuracy=accuracy(state.model, *data.test))
    common.finish(run)


if __name__ == "__main__":
    common.call(main)
