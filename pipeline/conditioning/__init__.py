"""From a prompt and an identity image to what the transformer is conditioned on."""
