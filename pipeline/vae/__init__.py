"""Frames <-> latents: one pass of the VAE's network, and the overlapping tiles it works on.

On a CPU the network runs in diffusers' layers, on a GPU in parts and with compiled passes over memory.
"""
