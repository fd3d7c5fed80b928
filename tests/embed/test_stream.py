import pytest
import torch

import fastinn
from fastinn import Encoder, Moments
from fastinn.embed.stream import check_keys


@pytest.fixture
def encoders(seeds):
    return {f"seed-{i}": Encoder(folder, layers=[0, 3]) for i, folder in enumerate(seeds)}


def test_views_are_paired_rows(encoders, corpus, texts):
    blocks = list(fastinn.stream(encoders, corpus, tokens_per_block=50))
    assert len(blocks) > 2
    for name, encoder in encoders.items():
        rows = torch.cat([block.rows[name, 3] for block in blocks])
        torch.testing.assert_close(rows, encoder.encode(texts).rows[3], atol=1e-5, rtol=0)


def test_stream_feeds_moments(encoders, corpus, texts):
    stream = fastinn.stream(encoders, corpus, tokens_per_block=50)
    moments = Moments(stream.n_features)
    for block in stream:
        moments.update(block.rows)
    x = encoders["seed-0"].encode(texts).rows[3].double()
    torch.testing.assert_close(moments.mean(("seed-0", 3)), x.mean(dim=0), atol=1e-6, rtol=0)
    assert moments.count == len(x)


def test_pair_yields_rows_and_documents(encoders, corpus):
    stream = fastinn.stream(encoders, corpus, tokens_per_block=50)
    pair = stream.pair(("seed-0", 3), ("seed-1", 0))
    for (x, y, documents), block in zip(pair, stream, strict=True):
        assert torch.equal(x, block.rows["seed-0", 3])
        assert torch.equal(y, block.rows["seed-1", 0])
        assert torch.equal(documents, block.keys[:, 0])


def test_other_tokenizer_is_refused(encoders, stranger, corpus):
    with pytest.raises(ValueError, match="odd and seed-0 have different tokenizers"):
        fastinn.stream(encoders | {"odd": Encoder(stranger, layers=[0])}, corpus)


def test_no_encoder_is_refused(corpus):
    with pytest.raises(ValueError, match="no encoder"):
        fastinn.stream({}, corpus)


def test_first_row_that_differs_is_named():
    keys = torch.arange(12).view(4, 3)
    moved = keys.clone()
    moved[2, 1] = 99
    with pytest.raises(ValueError, match=r"row 2 is .* \(6, 7, 8\) in a and \(6, 99, 8\) in b"):
        check_keys({"a": keys, "b": moved})


def test_unequal_numbers_of_rows_are_named():
    keys = torch.arange(12).view(4, 3)
    with pytest.raises(ValueError, match="a has 4 rows and b has 3"):
        check_keys({"a": keys, "b": keys[:3]})
