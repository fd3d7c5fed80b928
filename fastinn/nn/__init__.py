"""Invertible layers: each returns its result and the log-determinant of its Jacobian."""

from fastinn.nn._round_trip import LayerRoundTrip, RoundTrip, round_trip
from fastinn.nn.bert_inn import BertINN, bert_inn
from fastinn.nn.coupling import AffineCoupling
from fastinn.nn.flow import Flow
from fastinn.nn.graphed import GraphedFlow
from fastinn.nn.linear import InvertibleLinear

__all__ = [
    "AffineCoupling",
    "BertINN",
    "Flow",
    "GraphedFlow",
    "InvertibleLinear",
    "LayerRoundTrip",
    "RoundTrip",
    "bert_inn",
    "round_trip",
]
