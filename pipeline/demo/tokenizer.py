"""The demo model's own tokenizers: byte-level BPE of the shape of Llama 3's and of CLIP's, learned from `_CORPUS`.

Any text can be encoded; common words are one token, so the template in front of a prompt is 95 tokens as it is with
Llama 3's tokenizer.
"""

import json

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

_BOS, _EOS, _PAD = "<|begin_of_text|>", "<|end_of_text|>", "<pad>"
_LLAMA_SPECIALS = (_BOS, _EOS, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<image>", _PAD)
_WORD_END = "</w>"

# Llama 3's split into words, at most three digits, punctuation and blanks.
_LLAMA_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_CORPUS = """\
system
user

Describe the video by detailing the following aspects: 1. The main content and theme of the video.2. The color, shape,
 size, texture, quantity, text, and spatial relationships of the objects.3. Actions, events, behaviors temporal
 relationships, physical movement changes of the objects.4. background environment, light, style and atmosphere.5.
 camera angles, movements, and transitions used in the video:

Realistic, High-quality. A woman is playing a violin. The man is walking a dog on the street at night. The person looks
 like an object. She is smiling and drinking coffee at a table in a room with large windows. He wears a red coat, a
 blue shirt and black shoes. An old house by the sea, green trees, white clouds over the mountain, a river in the
 forest. The girl and the boy are dancing under warm golden light, slow motion, close up, wide shot, cinematic, soft
 focus. A cat sits on a chair while it reads a book. People are talking, singing, running and riding a bicycle in the
 city. Aerial view, aerial view, overexposed, low quality, deformation, a poor composition, bad hands, bad teeth,
 bad eyes, bad limbs, distortion, blurring, text, subtitles, static, picture, black border. There is one and two of
 them from this to that, has been into very beautiful face hair hand water sun park kitchen guitar piano car hat dress
 holding standing looking wearing sitting making taking out up down as for not no her his its their be was were will can
"""


def llama_tokenizer() -> PreTrainedTokenizerFast:
    """A `PreTrainedTokenizerFast` with Llama 3's special tokens, `<image>` and `<pad>`; BOS by the post-processor."""
    split = pre_tokenizers.Split(Regex(_LLAMA_SPLIT), behavior="isolated")
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, words])
    tokenizer.decoder = decoders.ByteLevel()
    _learn(tokenizer)
    tokenizer.add_special_tokens(list(_LLAMA_SPECIALS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_BOS} $A", pair=f"{_BOS} $A {_BOS} $B", special_tokens=[(_BOS, tokenizer.token_to_id(_BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_BOS,
        eos_token=_EOS,
        pad_token=_PAD,
        padding_side="right",
        model_max_length=8192,
    )


def clip_tokenizer() -> CLIPTokenizer:
    """A `CLIPTokenizer`: lower case, 77 tokens, `<|startoftext|>` and `<|endoftext|>` as the two highest ids."""
    bare = CLIPTokenizer().backend_tokenizer
    learner = Tokenizer(models.BPE(end_of_word_suffix=_WORD_END))
    learner.normalizer, learner.pre_tokenizer = bare.normalizer, bare.pre_tokenizer
    _learn(learner, suffix=_WORD_END)
    learned = json.loads(learner.to_str())["model"]
    vocab = dict(learned["vocab"])
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=[tuple(merge) for merge in learned["merges"]], model_max_length=77)


def _learn(tokenizer: Tokenizer, *, suffix: str = "") -> None:
    """Merge until every word of `_CORPUS` is one token; the byte alphabet comes first."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        show_progress=False,
        initial_alphabet=alphabet,
        end_of_word_suffix=suffix,
        # Named first, or the trainer numbers the letters that end a word in the order of a hash table.
        special_tokens=[letter + suffix for letter in alphabet] if suffix else [],
    )
    tokenizer.train_from_iterator([_CORPUS], trainer)
