"""Detectors: images -> regions with a feature, a class and a score each."""
