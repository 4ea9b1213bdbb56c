"""The relevance engine: operations that know, in backward, a rule instead of a derivative."""
