"""Shrinks and perturbs, and keeps what the optimizer remembers: caught by
test_shrink_and_perturb__every_arm_begins_alike."""

from functools import partial

from clp_min import schedule


def shrink_and_perturb(shrink, perturb):
    return partial(_event, schedule.shrink_and_perturb(shrink, perturb))


def _event(whole, setup, state):
    memory = state.optimizer.state_dict()
    whole(setup, state)
    state.optimizer.load_state_dict(memory)
