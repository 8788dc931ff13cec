"""Lemmas 1 and 2 as printed, W' - (CC'/C'C) W': caught by
test_split_along__lemmas_1_and_2."""

from theory import common_direction


def split_along(w, c):
    v, _ = common_direction.split_along(w, c)
    return v, common_direction.printed_residual(w, c)
