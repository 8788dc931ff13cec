"""One pool for all steps of an epoch: caught by
test_sweep__select_gets_a_pool_of_its_own_in_every_step."""

import torch

from clp_min import schedule, train


def sweep(*arguments, **named):
    pools = {}

    def selected(phase, state, x, y, chosen, n, draws):
        if state.epoch not in pools:
            order = torch.randperm(len(chosen), generator=draws["pool"])
            pools[state.epoch] = chosen[order[: phase.pool or n]]
        pool = pools[state.epoch]
        state.scored += len(pool)
        kept = phase.select(state.model, x[pool], y[pool], n, draws["select"], pool, state.step)
        return pool[kept]

    whole, train._selected = train._selected, selected
    try:
        yield from schedule.sweep(*arguments, **named)
    finally:
        train._selected = whole
