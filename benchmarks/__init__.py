"""Analytic gradients against every rival, side by side: `python -m benchmarks list` shows what there is."""
