"""One file for each family of cases: operands, and a table of providers."""
