"""Small random encoders of several families, with tokenizers that cut words into pieces."""

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

TEXTS = [
    "The quick brown fox jumps over the lazy dog; it doesn't stop, unfortunately.",
    "Unfortunately internationalization of naïve tokenizers isn't straightforward!",
    "café",
    "Words, words, words: " + "jumping foxes and sleeping dogs in straightforward sentences " * 6,
    "a b c",
    "東京 is written with two signs, and नमस्ते with marks.",
    "Foxes doing tokenization; dogs undoing internationalization. " * 3,
]

LENGTH = 24
"""Positions of every model."""

FAMILIES = ["bert", "roberta", "distilbert", "electra", "deberta-v2", "xlm-roberta", "camembert"]
_BYTE_LEVEL = {"roberta", "xlm-roberta", "camembert"}
_SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}


def make_family(folder, family, seed=0):
    """Save a random model of ``family`` with its tokenizer and return the folder."""
    tokenizer = byte_level() if family in _BYTE_LEVEL else word_pieces()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = dict(_SIZES, intermediate_size=64)
    if family == "distilbert":
        sizes = {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64}
    if family == "electra":
        sizes["embedding_size"] = 16
    if family == "deberta-v2":
        sizes |= {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
    positions = LENGTH + 2 if family in _BYTE_LEVEL else LENGTH
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        max_position_embeddings=positions,
        pad_token_id=tokenizer.pad_token_id,
        **sizes,
    )
    AutoModel.from_config(config).save_pretrained(folder)
    return str(folder)


def word_pieces(size=150):
    """Return a tokenizer in the manner of BERT."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=special)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return _wrapped(tokenizer, special)


def byte_level(size=330):
    """Return a tokenizer in the manner of RoBERTa, whose padding has index 1."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    order = ["pad", "unk", "cls", "sep", "mask"]
    names = dict(zip(["cls", "pad", "sep", "unk", "mask"], special, strict=True))
    return _wrapped(tokenizer, [names[name] for name in order])


def _wrapped(tokenizer, special):
    roles = ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"]
    # As published tokenizers often do, it claims more positions than the model has.
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=512, **dict(zip(roles, special, strict=True))
    )
