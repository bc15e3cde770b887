"""Where the files are in the original layout."""

DIT_FOLDER = "models/hunyuancustom_720P"
DIT = f"{DIT_FOLDER}/mp_rank_00_model_states.pt"
VAE_FOLDER = "models/vae_3d/hyvae_v1_0801"
VAE = f"{VAE_FOLDER}/pytorch_model.pt"
LLAVA = "models/llava-llama-3-8b-v1_1"
LLAVA_WEIGHTS = f"{LLAVA}/model.safetensors"
CLIP_WEIGHTS = "models/openai_clip-vit-large-patch14/model.safetensors"
