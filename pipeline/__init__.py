"""HunyuanCustom in diffusers: tensors in, frames out. Importing this package does not import torch.

The main path stays here: `hunyuan_custom` calls `conditioning`, `denoise` (over `transformer` and `blocks`) and `vae`.
"""
