# %% [markdown]
"""The pipeline without a server, step by step: each `# %%` is a cell in VS Code, PyCharm, Spyder and Jupytext.

It runs as a script too, in the checkout's environment and a folder with a `woman.jpg`. The demo model is tiny and
untrained and runs on any CPU; its clip shows the photo, not what HunyuanCustom can do.
"""

# %% What goes in, and where the video goes
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.conditioning.identity_image import fit_on_white, rgb_pixels
from pipeline.demo.model import build_demo_model
from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.load import load_pipeline
from pipeline.mp4 import write_mp4

image = Image.open("woman.jpg")
video = Path("notebook.mp4")
WIDTH, HEIGHT, FRAMES, STEPS, FPS = 224, 128, 9, 4, 25  # of the real model: 896, 512, 129, 30, 25

# %% The model. The real one: load_pipeline(Path("models/bf16"), device="cuda", dtype="bfloat16")
pipe = load_pipeline(build_demo_model(Path("demo-model")), device="cpu", dtype="float32")

# %% What the VAE will see of the photo: upright, without transparency, centred on white in the shape of the video
seen = fit_on_white(rgb_pixels(image, alpha="white"), HEIGHT, WIDTH)
Image.fromarray(seen).save(video.with_suffix(".seen.png"))


# %% Denoise, watching how far the latents still move in each step
def watch(_: HunyuanCustomPipeline, step: int, timestep: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """diffusers' callback at the end of a step: what it returns goes on."""
    print(f"step {step + 1}/{STEPS}, t = {timestep.item():.0f}, latents' deviation {tensors['latents'].std():.3f}")
    return tensors


latents = pipe(
    "A woman is playing a violin.",
    image,
    subject_name="woman",
    negative_prompt="blurry",
    width=WIDTH,
    height=HEIGHT,
    num_frames=FRAMES,
    num_inference_steps=STEPS,
    generator=torch.Generator("cpu").manual_seed(7),
    output_type="latent",
    callback_on_step_end=watch,
).frames
print(f"latents {list(latents.shape)}: 16 channels, {FRAMES} frames / 4, each side / 8")

# %% Decode, and look at a few frames side by side
frames = [np.asarray(frame) for frame in pipe.decode(latents, "pil", None)[0]]
Image.fromarray(np.concatenate(frames[:: FRAMES // 3], axis=1)).save(video.with_suffix(".strip.png"))

# %% Write the video
size = write_mp4([np.stack(frames)], video, fps=FPS, num_frames=FRAMES, width=WIDTH, height=HEIGHT, threads=1)
print(f"{video}, {size} bytes")
