"""HunyuanCustom in diffusers: tensors in, frames out. Importing this package does not import torch.

The main path stands here. `hunyuan_custom` is the pipeline: it calls `conditioning`, `guidance`, `denoise` (over
`transformer`, `blocks` and `rope`) and `vae`; `load` makes one from a folder, `mp4` writes its frames. The order in
which modules may import each other is a contract of import-linter in `pyproject.toml`.
"""
