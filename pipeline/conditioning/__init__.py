"""From a prompt and an identity image to what the transformer is conditioned on.

Drives LLaVA, CLIP and (through `pipeline.vae`) the VAE; does not know the transformer.
"""
