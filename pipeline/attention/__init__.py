"""What computes attention: one function of q, k and v, chosen when a model is loaded and passed down as an argument."""
