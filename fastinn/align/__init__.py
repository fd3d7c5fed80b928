"""Maps between representation spaces: fit, transform, inverse_transform."""

from fastinn.align.all_pairs import PairScores, all_pairs
from fastinn.align.base import Aligner, Bijection, load_aligner
from fastinn.align.cca import CCA, PWCCA, SVCCA
from fastinn.align.gcca import GCCA
from fastinn.align.hub import Hub
from fastinn.align.inn import INN
from fastinn.align.linear import LinearMap
from fastinn.align.mlp import MLPMap
from fastinn.align.moment import Factors
from fastinn.align.procrustes import Procrustes
from fastinn.align.published import PublishedBertINN

__all__ = [
    "CCA",
    "GCCA",
    "INN",
    "PWCCA",
    "SVCCA",
    "Aligner",
    "Bijection",
    "Factors",
    "Hub",
    "LinearMap",
    "MLPMap",
    "PairScores",
    "Procrustes",
    "PublishedBertINN",
    "all_pairs",
    "load_aligner",
]
