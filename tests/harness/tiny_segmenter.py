"""A tiny, untrained RF-DETR with masks in a folder as the hub publishes the real one."""

import json
from pathlib import Path

import torch
from transformers import RfDetrConfig, RfDetrForInstanceSegmentation

SIDE = 48


def write_segmenter(folder: Path) -> Path:
    torch.manual_seed(0)
    backbone = {
        "model_type": "rf_detr_dinov2",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 12,
        "num_windows": 2,
        "out_features": ["stage1", "stage2"],
    }
    heads = {"decoder_self_attention_heads": 2, "decoder_cross_attention_heads": 2, "decoder_layers": 1}
    sizes = {"d_model": 16, "decoder_ffn_dim": 16, "intermediate_size": 16, "num_queries": 5, "group_detr": 1}
    config = RfDetrConfig(backbone_config=backbone, id2label={0: "person", 1: "dog"}, **heads, **sizes)
    RfDetrForInstanceSegmentation(config).eval().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": SIDE, "width": SIDE}}))
    return folder
