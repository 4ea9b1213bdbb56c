"""Benchmarks: how good explanations are."""
