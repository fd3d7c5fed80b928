"""``fastinn demo``."""

from pathlib import Path

from fastinn.align import INN, MLPMap
from fastinn.cli._options import AsJson, Out, Overwrite, processors
from fastinn.cli._run import run_comparison
from fastinn.embed import Corpus, Encoder
from fastinn.embed.seeds import shipped_seeds
from fastinn.study.comparison import Comparison

# A tour of a few minutes on two cores: half the width of the defaults, fewer and smaller steps.
_INN = INN(hidden=768, max_steps=250, batch_size=256)
_MLP = MLPMap(hidden=768, max_steps=300, batch_size=256)
_DOCUMENTS = 80
_CANDIDATES = 2_000


def demo(
    out: Out = Path("fastinn-demo"), overwrite: Overwrite = True, as_json: AsJson = False
) -> None:
    """Align the shipped mini BERTs, all pairs, with the main methods, and write a report.

    Example: fastinn demo --out my-demo
    """
    encoders = {n: Encoder(str(path), layers="all") for n, path in shipped_seeds().items()}
    corpus = Corpus.python_docs().head(_DOCUMENTS)
    run_comparison(
        encoders,
        corpus,
        Comparison(inn=_INN, mlp=_MLP, n_candidates=_CANDIDATES, n_jobs=processors()),
        out,
        overwrite,
        as_json,
        "fastinn demo",
    )
