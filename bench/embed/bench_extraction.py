"""Hidden states of all layers of a BERT of real width, beside the usual padded loop."""

from functools import partial

import pytest
import torch
from accuracy import check
from ceilings import product
from comparison import Case
from peers.padded_loop import hidden_states
from stages import shares
from tokenizers import BertWordPieceTokenizer
from tolerances import HIDDEN_STATES, HIDDEN_STATES_16_BITS
from transformers import AutoModel, BertConfig, BertModel, PreTrainedTokenizerFast

from fastinn import Corpus, Encoder

LENGTH = 512
SIZES = {"hidden_size": 768, "num_hidden_layers": 6, "intermediate_size": 3072}
EVERY = {"cpu": 240, "cuda": 1}
"""Which of the corpus' windows are read, spread over all of it: what a CPU does in seconds."""

PRECISIONS = {device: ["exact", "fast"] for device in ("cpu", "cuda")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of a model with random weights and a tokenizer made from the corpus."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = BertWordPieceTokenizer(lowercase=True)
    tokenizer.train_from_iterator((d.text for d in Corpus.python_docs()), vocab_size=8_000)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), model_max_length=LENGTH, **names
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=8_000, max_position_embeddings=LENGTH, **SIZES)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return str(folder)


def multiply_adds(windows):
    """Count those of the products with weights and of attention, all layers."""
    d, hidden = SIZES["hidden_size"], SIZES["intermediate_size"]
    lengths = torch.tensor([len(window.ids) for window in windows])
    of_layer = (4 * d * d + 2 * d * hidden) * lengths.sum() + 2 * d * (lengths**2).sum()
    return SIZES["num_hidden_layers"] * int(of_layer)


def test_all_layers(comparison, device, capsys, folder, precision):
    encoder = Encoder(folder, layers="all", precision=precision, device=device)
    documents = Corpus.python_docs()
    windows = list(encoder.tokens.windows(documents))[:: EVERY[device]]
    model = AutoModel.from_pretrained(folder).eval().to(device)
    usual = partial(hidden_states, model, windows, LENGTH)

    rows, expected = encoder.encode_windows(windows).rows, usual()
    if precision == "exact":
        errors = [float((rows[layer] - expected[layer].cpu()).abs().max()) for layer in rows]
        error = check(max(errors), HIDDEN_STATES, "a hidden state")
    else:
        errors = [
            float((rows[layer] - expected[layer].cpu()).norm() / expected[layer].cpu().norm())
            for layer in rows
        ]
        error = check(max(errors), HIDDEN_STATES_16_BITS[encoder.dtype], "a layer")

    n_tokens = sum(window.n_tokens for window in windows)
    kind = str(encoder.dtype).removeprefix("torch.")
    comparison(
        Case(
            "6 layers of 768, all read",
            n_tokens,
            product(device, kind),
            2.0 * multiply_adds(windows),
            precision,
            kind,
        ),
        partial(encoder.encode_windows, windows),
        {"padded loop, float32": usual},
        error,
    )
    with capsys.disabled():
        print(f"\n  of which {shares(encoder, documents, EVERY[device])}", end="")
