"""One request on several GPUs: the group of ranks, attention over split tokens, and what each rank computes.

Built on the transformer, which does not know of it: see `pipeline.share` for the interface between the two.
"""
