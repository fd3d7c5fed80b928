"""Which scores belong together, and how they are averaged and printed."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fastinn.report.headline import cell_of, headline_layers, is_at, is_network
from fastinn.study.records import is_of

Results = Mapping[str, Any]
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Summary:
    """The finite values of several pairs.

    Attributes:
        mean: Of them.
        low: The smallest.
        high: The largest.
        n_finite: How many there are.
        n_bad: How many were not finite.
        interval: Ends of the 95 % interval of the mean; ``None`` where results hold none.
    """

    mean: float
    low: float
    high: float
    n_finite: int
    n_bad: int
    interval: tuple[float, float] | None = None

    def __str__(self) -> str:
        text = f"{decimal(self.mean)} ({self.spread})" if self.spread else decimal(self.mean)
        return text + self.warning

    @property
    def span(self) -> str:
        """Smallest to largest."""
        return f"{decimal(self.low)} to {decimal(self.high)}"

    @property
    def spread(self) -> str:
        """The interval of the mean; without one, smallest to largest; empty of a single value."""
        if self.interval:
            return f"{decimal(self.interval[0])} to {decimal(self.interval[1])}"
        return self.span if self.n_finite > 1 else ""

    @property
    def warning(self) -> str:
        """What the mean leaves out, empty if nothing."""
        return f", {self.n_bad} not finite" if self.n_bad else ""


@dataclass(frozen=True)
class Fit:
    """One method on one pair of models at the headline's layers, scored in both directions.

    A bijection is one map: ``backward`` scores its inverse. Any other method needs a second map,
    fitted from target to source, and ``backward`` scores that one.
    """

    method: str
    source: str
    target: str
    forward: Record
    backward: Record | None
    bijection: bool
    round_trip: float

    @property
    def maps(self) -> str:
        """How many maps the two directions took."""
        if self.backward is None:
            return "one direction only"
        return "one, both ways" if self.bijection else "one per direction"


@dataclass(frozen=True)
class MethodRow:
    """The fits of one method, summarised over pairs."""

    method: str
    forward: Summary
    backward: Summary
    forward_error: Summary
    backward_error: Summary
    bijection: bool
    maps: str
    round_trip: float
    over: str
    """What the intervals are over."""

    @property
    def both(self) -> float:
        """Mean R2 of the two directions."""
        return (self.forward.mean + self.backward.mean) / 2


def number(value: float | None) -> float:
    """Return ``value`` as a float, NaN where it is missing or infinite."""
    return value if value is not None and math.isfinite(value) else math.nan


def decimal(value: float | None, places: int = 3) -> str:
    """Print a score: fixed places, or whole thousands where a map has exploded."""
    value = number(value)
    if math.isnan(value):
        return "n/a"
    # Adding zero turns the -0.0 that small negative values round to into 0.0.
    return f"{round(value, places) + 0.0:.{places}f}" if abs(value) < 1000 else f"{value:,.0f}"


def summarise(values: Iterable[float | None], mean: Record | None = None) -> Summary:
    """Average the finite ``values`` and count the others.

    Args:
        values: Of several pairs.
        mean: Record of their mean, whose interval is taken if it has one.
    """
    cleaned = [number(value) for value in values]
    finite = [value for value in cleaned if not math.isnan(value)]
    n_bad = len(cleaned) - len(finite)
    if not finite:
        return Summary(math.nan, math.nan, math.nan, 0, n_bad)
    average = sum(finite) / len(finite)
    of_these = mean is not None and "low" in mean and mean["n_pairs"] == len(finite)
    interval = (mean["low"], mean["high"]) if mean is not None and of_these else None
    return Summary(average, min(finite), max(finite), len(finite), n_bad, interval)


def mean_of(results: Results, record: Record, direction: str) -> Record | None:
    """Return the mean over pairs of a score's method and layers, if results hold it.

    Args:
        results: Results of a comparison.
        record: A score of them.
        direction: ``"forward"``, ``"backward"`` or ``"both"``.
    """
    names = ("method", "source_layer", "target_layer")
    wanted = {name: record[name] for name in names} | {"direction": direction}
    return next((r for r in results.get("means", []) if wanted.items() <= r.items()), None)


def fits(results: Results) -> list[Fit]:
    """Pair up the held-out scores of the headline, one :class:`Fit` a method and pair."""
    layers = headline_layers(results)
    order = {name: rank for rank, name in enumerate(layers)}
    records = {
        (record["method"], record["source"], record["target"], record["fitted"]): record
        for record in results.get("scores", [])
        if is_at(record, layers)
    }
    invertible = {method for method, _, _, fitted in records if fitted == "inverse"}
    found = []
    for (method, source, target, fitted), record in records.items():
        bijection = method in invertible
        backward = records.get((method, target, source, "inverse" if bijection else "direct"))
        counted_from_other_side = not bijection and backward and order[source] > order[target]
        if fitted == "inverse" or counted_from_other_side:
            continue
        round_trip = number(record.get("round_trip"))
        found.append(Fit(method, source, target, record, backward, bijection, round_trip))
    return found


def method_rows(found: Iterable[Fit], results: Results | None = None) -> list[MethodRow]:
    """Summarise fits over pairs, one row a method, in order of appearance.

    Args:
        found: What :func:`fits` returned.
        results: Results that they are of, for the intervals of means.
    """
    by_method: dict[str, list[Fit]] = {}
    for fit in found:
        by_method.setdefault(fit.method, []).append(fit)
    return [_method_row(method, group, results or {}) for method, group in by_method.items()]


def _method_row(method: str, group: list[Fit], results: Results) -> MethodRow:
    forward = [fit.forward for fit in group]
    backward = [fit.backward for fit in group if fit.backward is not None]
    means = _mean_of_all(results, forward, "forward"), _mean_of_all(results, forward, "backward")
    return MethodRow(
        method,
        summarise((record["r2"] for record in forward), means[0]),
        summarise((record["r2"] for record in backward), means[1]),
        summarise(record.get("relative_mse") for record in forward),
        summarise(record.get("relative_mse") for record in backward),
        group[0].bijection,
        group[0].maps,
        # The worst pair: a mean would hide one broken inverse.
        summarise(fit.round_trip for fit in group).high,
        means[0]["over"] if means[0] else "",
    )


def _mean_of_all(results: Results, records: list[Record], direction: str) -> Record | None:
    """Return the mean that holds all of these scores: none if they are of several layers."""
    if len({cell_of(record) for record in records}) > 1:
        return None
    return mean_of(results, records[0], direction)


def brackets(rows: Iterable[MethodRow]) -> str:
    """Say what stands in brackets behind the means of ``rows``."""
    over = sorted({row.over for row in rows if row.forward.interval}, key=len)
    return f"95 % interval over {' or '.join(over)}" if over else "smallest to largest"


def differences(results: Results) -> list[dict[str, Any]]:
    """Return one row for each two methods and pair of layers: their difference a direction."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    names = ("method", "minus", "source_layer", "target_layer")
    for record in results.get("differences", []):
        place = {name: record[name] for name in names}
        row = rows.setdefault(tuple(place.values()), dict(place))
        row[record["direction"]] = record
    return list(rows.values())


def cell_rows(results: Results) -> list[dict[str, Any]]:
    """Return one row for each method and each pair of layers at which networks were trained.

    Returns:
        ``method``, the layers and the mean of each direction; nothing where the headline shows
        all of it.
    """
    means = results.get("means", [])
    cells = {cell_of(record) for record in means if is_network(record["method"])}
    if not cells - {cell_of(fit.forward) for fit in fits(results)}:
        return []
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in sorted((r for r in means if cell_of(r) in cells), key=cell_of):
        place = {name: record[name] for name in ("method", "source_layer", "target_layer")}
        rows.setdefault(tuple(place.values()), place)[record["direction"]] = record
    return list(rows.values())


def strata_tables(results: Results) -> list[dict[str, Any]]:
    """Return one table for each property and pair of layers.

    Returns:
        ``by``, the layers, ``methods`` and ``rows``: name of the stratum, its number of tokens
        and the record of each method.
    """
    tables: dict[tuple[Any, ...], dict[str, Any]] = {}
    names = ("by", "source_layer", "target_layer")
    for record in results.get("strata", []):
        place = {name: record[name] for name in names}
        table = tables.setdefault(tuple(place.values()), {**place, "methods": [], "rows": {}})
        if record["method"] not in table["methods"]:
            table["methods"].append(record["method"])
        row = table["rows"].setdefault(record["stratum"], {"tokens": record["rows"]})
        row[record["method"]] = record
    return list(tables.values())


def sentences(rows: Iterable[MethodRow]) -> list[str]:
    """Say in plain English what the headline shows, leaving out what was not run."""
    rows = list(rows)
    inn = next((row for row in rows if is_of(row.method, "INN")), None)
    free = next((row for row in rows if is_of(row.method, "MLP")), None)
    hub = next((row for row in rows if is_of(row.method, "hub INN")), None)
    linear = [row for row in rows if row.bijection and not is_network(row.method)]
    said = []
    if inn:
        said.append(f"{inn.method}, an invertible network, reaches {_shares(inn)}.")
    if linear:
        best = max(linear, key=lambda row: (not math.isnan(row.both), row.both))
        said.append(f"{best.method}, the best linear bijection, reaches {_shares(best)}.")
    if free:
        said.append(f"{free.method}, a network with no inverse, reaches {_shares(free)}.")
    if inn and free and inn.both > 0 and free.both > 0:
        share = f"{inn.both / free.both:.0%}"
        said.append(f"So the bijection keeps {share} of what a network with no inverse reaches.")
    if inn and hub:
        said.append(f"{hub.method}, one map a model instead of one a pair, reaches {_shares(hub)}.")
    return said


def _shares(row: MethodRow) -> str:
    """Put both directions of a row in words."""
    if row.maps == "one direction only":
        return str(row.forward)
    back = "through its inverse" if row.bijection else "with a second map"
    return f"{row.forward} from source to target and {row.backward} back {back}"
