"""capscope: train image captioners, explain every word they say, and measure the explanations."""

__version__ = "0.1.0"
