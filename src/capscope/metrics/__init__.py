"""Caption metrics: what a caption is worth against references, objects and other captions."""
