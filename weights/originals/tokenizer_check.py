"""Do the tokenizers produce the tokens HunyuanCustom was trained with?

Of LLaVA's, everything downstream counts on three facts: the prompt template's prefix is exactly 95 tokens (they are
cropped from the hidden states), BOS comes first, and `<image>` is one token with the id LLaVA's config names.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from weights.errors import TokenizerError
from weights.originals.prompt_template import TEMPLATE
from weights.originals.structure import reason_of
from weights.writing.component import read_json

PREFIX_TOKENS = 95


def check_tokenizer(tokenizer_folder: Path, model_folder: Path) -> None:
    """Raise `TokenizerError` naming the file and the fact that does not hold. As published, both folders are one."""
    path = tokenizer_folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"{path}: cannot be read ({reason_of(error)})") from error
    tokenizer.no_padding()  # settings saved with the file; the pipeline uses neither
    tokenizer.no_truncation()
    ids = tokenizer.encode(TEMPLATE).ids
    if len(ids) != PREFIX_TOKENS:
        raise TokenizerError(f"{path}: the template's prefix is {len(ids)} tokens, {PREFIX_TOKENS} are needed")
    bos = read_json(tokenizer_folder / "tokenizer_config.json").get("bos_token")
    name = bos.get("content") if isinstance(bos, dict) else bos
    if name is None or ids[0] != tokenizer.token_to_id(name):
        raise TokenizerError(f"{path}: the first token is {tokenizer.id_to_token(ids[0])!r}, not BOS ({name!r})")
    config = read_json(model_folder / "config.json")
    image_id = config.get("image_token_index", config.get("image_token_id"))
    if tokenizer.token_to_id("<image>") != image_id or tokenizer.encode("<image>").ids[1:] != [image_id]:
        raise TokenizerError(f"{path}: <image> is token {tokenizer.token_to_id('<image>')}, the config says {image_id}")


def check_clip_tokenizer(folder: Path, *, vocabulary: int) -> None:
    """Raise `TokenizerError` unless CLIP's tokenizer loads and has as many tokens as its model.

    Without its files the class makes a tokenizer of two tokens, and no error.
    """
    from transformers import CLIPTokenizer

    if not (folder / "tokenizer.json").is_file():
        for name in ("vocab.json", "merges.txt"):
            if not (folder / name).is_file():
                raise TokenizerError(f"{folder / name}: missing")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        ids = tokenizer("a").input_ids
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"{folder}: CLIPTokenizer refuses its files ({reason_of(error)})") from error
    if len(tokenizer) != vocabulary:
        raise TokenizerError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, config.json's vocab_size is {vocabulary}"
        )
    if (ids[0], ids[-1]) != (tokenizer.bos_token_id, tokenizer.eos_token_id):
        raise TokenizerError(f"{folder}: a prompt does not stand between BOS and EOS")
