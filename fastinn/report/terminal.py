"""Tables for a terminal."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from fastinn.report.tables import Results, decimal, fits, method_rows


def score_table(results: Results) -> Table:
    """Summarise a comparison's held-out scores at the last layers, one row a method."""
    table = _table(
        "Held-out R2 at the last layer, mean over pairs",
        "method",
        "source -> target",
        "target -> source",
        "maps",
        "round trip",
    )
    for row in method_rows(fits(results)):
        round_trip = "" if math.isnan(row.round_trip) else f"{row.round_trip:.0e}"
        cells = (str(row.forward), str(row.backward), row.maps, round_trip)
        table.add_row(row.method, *cells)
    return table


def map_table(scores: Mapping[str, Mapping[str, float]]) -> Table:
    """Show the scores of single maps, as :func:`fastinn.metrics.evaluate` gives them."""
    columns = list(dict.fromkeys(name for record in scores.values() for name in record))
    table = _table("Held-out scores", "method", *columns)
    for method, record in scores.items():
        table.add_row(method, *(_score(record.get(name)) for name in columns))
    return table


def recovery_table(records: Iterable[Mapping[str, Any]]) -> Table:
    """Show how well each method recovered each hidden bijection, and how linear that is."""
    table = _table(
        "Held-out relative error",
        "hidden bijection",
        "a linear map leaves",
        "method",
        "x -> y",
        "y -> x",
    )
    hidden: dict[str, dict[str, dict[str, float]]] = {}
    for record in records:
        methods = hidden.setdefault(_hidden_name(record), {})
        methods.setdefault(record["method"], {})[record["direction"]] = record["relative_mse"]
    for name, methods in hidden.items():
        left = f"{methods['LinearMap']['x->y']:.1e}" if "LinearMap" in methods else ""
        for method, errors in methods.items():
            table.add_row(name, left, method, f"{errors['x->y']:.1e}", f"{errors['y->x']:.1e}")
    return table


def _hidden_name(record: Mapping[str, Any]) -> str:
    strength = record["strength"]
    return record["bijection"] if strength is None else f"{record['bijection']} x {strength:g}"


def seed_table(cards: Mapping[str, Mapping[str, Any]]) -> Table:
    """Show the held-out scores of pretrained seeds beside their unigram baseline."""
    table = _table("Masked-LM, held out", "seed", "loss", "unigram", "accuracy", "unigram")
    for name, card in cards.items():
        table.add_row(
            name,
            f"{card['loss']:.3f}",
            f"{card['unigram_loss']:.3f}",
            f"{card['accuracy']:.1%}",
            f"{card['unigram_accuracy']:.1%}",
        )
    return table


def findings_table(findings: Mapping[str, Any]) -> Table:
    """Show nested findings, a row each."""
    table = _table("fastinn doctor", "what", "found")
    for what, found in findings.items():
        if isinstance(found, Mapping):
            for detail, value in found.items():
                table.add_row(f"{what}: {detail}", "available" if value is True else str(value))
        else:
            table.add_row(what, str(found))
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="left" if first == "what" else "right")
    return table


def _score(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else decimal(value)
