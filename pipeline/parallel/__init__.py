"""One request on several GPUs: ranks, Ulysses attention, and which share of a forward each computes."""
