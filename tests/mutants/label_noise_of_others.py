"""Redraws each chosen label among the OTHER classes: caught by
test_label_noise__redraws_exactly_the_share_over_all_classes."""

import torch

from clp_min import deficits


def label_noise(y, fraction, classes, generator):
    _, redrawn = deficits.label_noise(y, fraction, classes, generator)
    shift = torch.randint(1, classes, (len(y),), generator=generator)
    return torch.where(redrawn, (y + shift) % classes, y), redrawn
