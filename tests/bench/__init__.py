"""Benchmarks, with little of everything, so that they cannot rot."""
