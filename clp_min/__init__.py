"""Critical learning periods and learning phases in deep networks, in PyTorch.

Import from the modules. Data: data, files, synthetic, deficits, augment. Training: models,
transformer, schedule, train, seeding. Measuring: fisher (with layer_rules), gradients, information,
reconstruction. How a study is run and told: clp_min.study.
"""

__version__ = "0.1.0"
