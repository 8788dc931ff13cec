"""Values below the first edge get index -1, which is the last bin: caught by
test_binned_mutual_information__equals_dictionaries."""

import numpy as np

from clp_min import information


def binned_mutual_information(t, reading, y=None, bins=30, low=-1.0, high=1.0, outside="clip"):
    t = np.array(t, dtype=float)
    if outside == "clip":
        t[t < low] = high
    return information.binned_mutual_information(t, reading, y, bins, low, high, outside)
