"""HunyuanCustom in diffusers: tensors in, frames out. Importing this package does not import torch."""
