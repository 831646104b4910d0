"""The side-by-side comparison with peers: what `benchmarks/compare.py` measures, one module per subject."""
