"""How a study is run and told: command line, work, record, panels and their figures.

The science (the rest of clp_min) never imports this; scripts and tests do.
"""

from clp_min.study.command import Study, command_line, scales
from clp_min.study.panel import Axes, Curve, Effect, Panel

__all__ = ["Axes", "Curve", "Effect", "Panel", "Study", "command_line", "scales"]
