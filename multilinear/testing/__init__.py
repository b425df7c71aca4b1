"""Verification of multilinear operators, the library's own and yours."""
