"""One request on several GPUs: the group of ranks, attention over split tokens, and what each rank computes.

Built on the transformer and the VAE, which do not know of it: the interfaces are `pipeline.share`, and `elsewhere` in
`pipeline.vae.codec`.
"""
