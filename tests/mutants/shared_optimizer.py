"""Forks the weights but not the optimizer's memory: caught by test_sweep__forked_equals_alone."""

from clp_min import schedule, train


def sweep(setup, schedules, seed, at=None, checkpoint=None, save_every=20.0):
    def fork(self):
        copied = whole(self)
        copied.optimizer = train.fresh_optimizer(setup, copied.model)
        copied.optimizer.state.update(
            {
                new: self.optimizer.state[old]
                for new, old in zip(copied.model.parameters(), self.model.parameters())
            }
        )
        return copied

    whole, train.State.fork = train.State.fork, fork
    try:
        yield from schedule.sweep(setup, schedules, seed, at, checkpoint, save_every)
    finally:
        train.State.fork = whole
