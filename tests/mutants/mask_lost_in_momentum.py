"""Masks the weights and not the gradients, which momentum remembers: caught by
test_sweep__pruned_weights_stay_zero_and_so_does_their_momentum."""

from clp_min import schedule, train


def sweep(*arguments, **named):
    whole = train.training_step

    def step(model, *rest):
        *settings, masks, _ = rest
        loss = whole(model, *settings)
        train.apply_masks(model, masks or {})
        return loss

    train.training_step = step
    try:
        yield from schedule.sweep(*arguments, **named)
    finally:
        train.training_step = whole
