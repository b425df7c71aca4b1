"""Measurements with their targets: `python -m benchmarks NAME`."""
