"""Importing features that others published or extracted."""
