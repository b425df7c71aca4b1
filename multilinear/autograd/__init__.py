"""Operators with analytic gradients: one file each, forward and backward formula side by side."""
