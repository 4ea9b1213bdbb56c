"""The original authors' checkpoints, features and vocabularies."""
