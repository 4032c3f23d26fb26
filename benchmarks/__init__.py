"""Benchmarks: Candlelake and its peers do the same work side by side in one run."""
