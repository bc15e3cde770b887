"""Frames <-> latents: one pass of the VAE's network, and the overlapping tiles it works on."""
