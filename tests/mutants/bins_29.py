"""linspace(-1, 1, 30) makes 30 edges, 29 bins: caught by
test_binned_mutual_information__equals_dictionaries."""

from clp_min import information


def binned_mutual_information(t, reading, y=None, bins=30, low=-1.0, high=1.0, outside="clip"):
    return information.binned_mutual_information(t, reading, y, bins - 1, low, high, outside)
