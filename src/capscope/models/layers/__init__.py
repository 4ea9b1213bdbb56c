"""Layers that several captioners share, written in relevance operations."""
