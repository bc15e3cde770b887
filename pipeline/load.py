"""A folder in diffusers' layout -> a pipeline ready to run."""

from pathlib import Path
from typing import Any

from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel
from transformers import CLIPTextModel, LlavaForConditionalGeneration

from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.memory import DtypePolicy


def load_pipeline(folder: Path, *, device: str, dtype: str) -> HunyuanCustomPipeline:
    """Strictly: a weight that is missing, left over or of another shape raises ValueError. Nothing is downloaded.

    `dtype`: "float32" or "bfloat16", see `DtypePolicy`.
    """
    policy = DtypePolicy.named(dtype, device)
    models = {
        "transformer": (HunyuanVideoTransformer3DModel, policy.transformer),
        "vae": (AutoencoderKLHunyuanVideo, policy.vae),
        "text_encoder": (LlavaForConditionalGeneration, policy.text_encoders),
        "text_encoder_2": (CLIPTextModel, policy.text_encoders),
    }
    components = {name: _load_model(model, folder / name, dtype) for name, (model, dtype) in models.items()}
    pipe = HunyuanCustomPipeline.from_pretrained(folder, local_files_only=True, **components)
    return pipe.to(device)


def _load_model(model_class: Any, folder: Path, dtype: Any) -> Any:
    keyword = "torch_dtype" if model_class.__module__.startswith("diffusers") else "dtype"
    model, report = model_class.from_pretrained(
        folder, output_loading_info=True, local_files_only=True, **{keyword: dtype}
    )
    problems = {kind: sorted(map(str, names)) for kind, names in report.items() if names and kind != "error_msgs"}
    if problems:
        raise ValueError(f"{folder} does not hold exactly the weights of {model_class.__name__}: {problems}")
    return model.eval().requires_grad_(False)
