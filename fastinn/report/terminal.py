"""Tables for a terminal."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from fastinn.report.headline import headline_place, is_network
from fastinn.report.tables import (
    Results,
    brackets,
    cell_rows,
    decimal,
    differences,
    fits,
    method_rows,
    strata_tables,
)
from fastinn.study.records import is_of


def score_table(results: Results) -> Table:
    """Summarise a comparison's held-out scores at one layer of each model, one row a method."""
    rows = method_rows(fits(results), results)
    table = _table(
        f"Held-out R2 at {headline_place(results)}, mean over pairs ({brackets(rows)})",
        "method",
        "source -> target",
        "target -> source",
        "maps",
        "round trip",
    )
    for row in rows:
        round_trip = "" if math.isnan(row.round_trip) else f"{row.round_trip:.0e}"
        cells = (str(row.forward), str(row.backward), row.maps, round_trip)
        table.add_row(row.method, *cells)
    return _named(table)


def cell_table(results: Results) -> Table:
    """Show the scores at every pair of layers at which networks were trained."""
    table = _table(
        "Held-out R2 layer by layer, mean over pairs (95 % interval)",
        "method",
        "layers",
        "source -> target",
        "target -> source",
    )
    for row in cell_rows(results):
        table.add_row(row["method"], *_both_ways(row))
    return _named(table)


def difference_table(results: Results) -> Table:
    """Show by how much methods differ on the same pairs and rows, layer by layer."""
    table = _table(
        "Differences of held-out R2 (95 % interval, resamples paired)",
        "difference",
        "layers",
        "source -> target",
        "target -> source",
    )
    for row in differences(results):
        table.add_row(f"{row['method']} - {row['minus']}", *_both_ways(row))
    return _named(table)


def _both_ways(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Print the layers of a row and what it holds of each direction."""
    layers = f"{row['source_layer']} -> {row['target_layer']}"
    return layers, interval(row.get("forward")), interval(row.get("backward"))


def baseline_table(results: Results) -> Table:
    """Show what maps from the length of a window alone explain of each layer's attention."""
    table = _table("Held-out R2 from the window's length alone", "method", "target layer", "R2")
    for record in results["baseline_means"]:
        table.add_row(record["method"], str(record["target_layer"]), interval(record))
    return table


def strata_table(results: Results) -> Table:
    """Show the R2 of each stratum at the last layers of networks, or of all; a method a column."""
    tables = strata_tables(results)
    trained = [of for of in tables if any(map(is_network, of["methods"]))]
    places = [(of["source_layer"], of["target_layer"]) for of in trained or tables]
    place = list(max(places, key=lambda sides: (sides[0] == sides[1], *sides), default=()))
    found = [of for of in tables if [of["source_layer"], of["target_layer"]] == place]
    methods = [m for m in dict.fromkeys(m for of in found for m in of["methods"]) if _is_shown(m)]
    layers = " -> ".join(map(str, place))
    title = f"Held-out R2 of tokens by stratum, layers {layers} (95 % interval)"
    table = _table(title, "stratum", "tokens", *methods)
    for of in found:
        table.add_row(of["by"])
        for stratum, row in of["rows"].items():
            spans = (interval(row.get(method), 2) for method in methods)
            table.add_row(f"  {stratum}", f"{row['tokens']:,}", *spans)
    return _named(table)


def _is_shown(method: str) -> bool:
    """Tell whether the strata of a method have room in a terminal; the report has them all."""
    return any(is_of(method, family) for family in ("least squares", "INN", "MLP"))


def interval(record: Mapping[str, Any] | None, places: int = 3) -> str:
    """Print a mean and its interval, as far as there are any."""
    if record is None:
        return ""
    mean = decimal(record["mean"], places)
    if "low" not in record:
        return mean
    return f"{mean} ({decimal(record['low'], places)} to {decimal(record['high'], places)})"


def map_table(scores: Mapping[str, Mapping[str, float]]) -> Table:
    """Show the scores of single maps, each R2 with its interval over documents if it has one."""
    named = dict.fromkeys(name for record in scores.values() for name in record)
    columns = [name for name in named if not name.endswith(("_low", "_high"))]
    table = _table("Held-out scores (R2: 95 % interval over documents)", "method", *columns)
    for method, record in scores.items():
        table.add_row(method, *(_score(record, name) for name in columns))
    return table


def recovery_table(records: Iterable[Mapping[str, Any]]) -> Table:
    """Show how well each method recovered each hidden bijection, and how linear that is."""
    table = _table(
        "Held-out relative error (95 % interval over documents)",
        "hidden bijection",
        "a linear map leaves",
        "method",
        "x -> y",
        "y -> x",
    )
    hidden: dict[str, dict[str, dict[str, Mapping[str, Any]]]] = {}
    for record in records:
        methods = hidden.setdefault(_hidden_name(record), {})
        methods.setdefault(record["method"], {})[record["direction"]] = record
    for name, methods in hidden.items():
        linear = methods.get("LinearMap")
        left = f"{linear['x->y']['relative_mse']:.1e}" if linear else ""
        for method, ways in methods.items():
            table.add_row(name, left, method, *(_error(ways[way]) for way in ("x->y", "y->x")))
    return _named(table)


def _error(record: Mapping[str, Any]) -> str:
    error = f"{record['relative_mse']:.1e}"
    if record["low"] is None:
        return error
    return f"{error} ({record['low']:.1e} to {record['high']:.1e})"


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


def store_table(stores: Mapping[str, Mapping[str, Any]]) -> Table:
    """Show what stores hold and how far their writers are."""
    table = _table("Stores", "store", "model", "layers", "dtype", "rows", "size", "writers done")
    for path, store in stores.items():
        writers = store["progress"]
        done = sum(writer["finished"] for writer in writers)
        table.add_row(
            path,
            f"{store['model']}@{(store['revision'] or 'local')[:8]}",
            ",".join(map(str, store["layers"])),
            store["dtype"],
            f"{store['rows']:,}",
            f"{store['bytes'] / 2**20:,.1f} MiB",
            f"{done} of {len(writers)}",
        )
    return table


def verdict_table(verdicts: Mapping[str, Mapping[str, Any]]) -> Table:
    """Show what reading stores for their checksums found."""
    table = _table("Stores, verified", "store", "shards", "rows", "size", "finished", "damages")
    for path, verdict in verdicts.items():
        table.add_row(
            path,
            f"{verdict['shards']:,}",
            f"{verdict['rows']:,}",
            f"{verdict['nbytes'] / 2**20:,.1f} MiB",
            "yes" if verdict["finished"] else "no",
            str(len(verdict["damages"])),
        )
    return table


def moments_table(splits: Mapping[str, Mapping[str, Any]]) -> Table:
    """Show what the moments of each split were accumulated from."""
    table = _table("Moments", "split", "documents", "rows")
    for split, record in splits.items():
        table.add_row(split, f"{record['documents']:,}", f"{record['rows']:,}")
    return table


def finetune_table(card: Mapping[str, Any]) -> Table:
    """Show the validation scores of a fine-tuned classifier, an epoch a row."""
    table = _table("Validation scores", "epoch", "loss", "accuracy", "commonest class")
    for epoch, scores in enumerate(card["history"], start=1):
        kept = " (kept)" if epoch == card["best_epoch"] else ""
        shares = (f"{scores['accuracy']:.1%}", f"{card['majority_accuracy']:.1%}")
        table.add_row(f"{epoch}{kept}", f"{scores['loss']:.3f}", *shares)
    return table


def stitching_table(results: Results) -> Table:
    """Show what stitching keeps, beside both models by themselves, a layer and method a row."""
    found = results["stitching"]
    table = _table(
        f"Held-out scores on {found['data']['texts']} texts, 95 % intervals",
        "layer",
        "method",
        "accuracy",
        "agreement",
        "kept",
        "R2",
    )
    base = found["baseline"]
    table.add_row("", "commonest class", f"{base['accuracy']:.1%}", f"{base['agreement']:.1%}")
    for role, scores in found["own"].items():
        table.add_row("", f"{role} itself", *map(_span, scores.values()))
    for record in found["scores"]:
        spans = (_span(record[name]) for name in ("accuracy", "agreement", "kept"))
        table.add_row(
            str(record["layer"]), record["method"], *spans, interval(_with_ends(record, "r2"), 2)
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


def _with_ends(record: Mapping[str, Any], name: str) -> dict[str, float]:
    """Return a score of a record as a mean with its interval, if it has one."""
    ends = {end: record[f"{name}_{end}"] for end in ("low", "high") if f"{name}_{end}" in record}
    return {"mean": record[name], **ends}


def _named(table: Table) -> Table:
    """Keep the names in the first column whole where a terminal is narrow; scores may break."""
    table.columns[0].no_wrap = True
    return table


def _span(interval: Mapping[str, float]) -> str:
    mean = f"{interval['mean']:.1%}"
    return (
        f"{mean} ({interval['low']:.1%} to {interval['high']:.1%})" if "low" in interval else mean
    )


def _score(record: Mapping[str, float], name: str) -> str:
    value = record.get(name)
    if value is None:
        return ""
    if f"{name}_low" in record:
        return interval(_with_ends(record, name))
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else decimal(value)
