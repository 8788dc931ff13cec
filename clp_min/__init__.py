"""Critical learning periods and learning phases in deep networks, in PyTorch.

Import from the modules: data, synthetic, deficits, augment, models, schedule, train, fisher,
record, plot.
"""

__version__ = "0.1.0"
