"""Frames <-> latents: the VAE's network, and the overlapping tiles it works on."""
