"""Other libraries with `multilinear` underneath."""
