"""Closed forms and exact simulations of the theory, in NumPy and float64. One file per
mechanism; nothing here knows clp_min or PyTorch."""
