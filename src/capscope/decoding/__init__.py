"""From visual features to captions: greedy, sampled, beam and diverse beam search.

All of them are batched and know of a captioner only what its protocol promises. Memory stays one
row per image; the rows of a search (beams, samples) are an axis of the state.
"""
