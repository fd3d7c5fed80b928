"""Networks of every pair of views: trained side by side, scored held-out."""

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from typing import TypeAlias, TypeVar

from joblib import Parallel, delayed
from sklearn.base import clone
from torch import Tensor

from fastinn import distributed
from fastinn._allocator import give_back_large_buffers
from fastinn._arrays import as_tensor
from fastinn._progress import progress
from fastinn._types import Array
from fastinn.align import INN, MLPMap, load_aligner
from fastinn.embed.corpus import Split
from fastinn.study._gpu import on_gpu
from fastinn.study.comparison import Comparison
from fastinn.study.held_out import HeldOut
from fastinn.study.parts import Part, Parts
from fastinn.study.passes import Pair, Pass, View, own_rows
from fastinn.study.records import Record, Results, network_name, score_record, training_record
from fastinn.study.scores import bijection_records, cycle_scored, map_scores

PairRows: TypeAlias = dict[Split, tuple[Array, Array]]
Network = TypeVar("Network", INN, MLPMap)

_WATCH_SECONDS = 0.2


def network_results(
    pairs: Sequence[Pair],
    how: Comparison,
    passes: Mapping[Split, Pass],
    held_out: HeldOut,
    parts: Parts,
) -> Iterator[Results]:
    """Train the networks of each pair and score them, and bijections round cycles of three.

    Args:
        pairs: Views whose rows the passes hold.
        how: What to train.
        passes: Rows of the views, of every split.
        held_out: What tells the test rows apart.
        parts: Where what is finished is kept.
    """
    triangles = _triangles(pairs)
    in_cycle = {side for triangle in triangles for side in combinations(triangle, 2)}
    bijections: dict[Pair, list[INN]] = {}
    done = _pairs_in_turn(pairs, how, passes, held_out, parts.of("networks"), in_cycle)
    for pair, (part, trained) in zip(
        pairs, progress(done, "networks", total=len(pairs), unit=" pairs"), strict=True
    ):
        if pair in in_cycle:
            bijections[pair] = trained
        yield part
    test = passes["test"].rows

    def cycles(number: int) -> Results:
        triangle = triangles[number]
        x = on_gpu(test[triangle[0]])
        return {"cycles": list(_cycles(triangle, bijections, x, held_out))}

    found = parts.of("cycles").divided(len(triangles), cycles)
    yield {"cycles": [record for part in found for record in part["cycles"]]}


def _triangles(pairs: Sequence[Pair]) -> list[tuple[View, View, View]]:
    """Return the first three seeds of each layer at which all their pairs are trained."""
    found: dict[int, tuple[View, View, View]] = {}
    known = set(pairs)
    for a, b in pairs:
        for _, c in (pair for pair in pairs if pair[0] == b):
            if (a, c) in known and a[1] == b[1] == c[1]:
                found.setdefault(a[1], (a, b, c))
    return list(found.values())


def _cycles(
    triangle: tuple[View, View, View],
    bijections: Mapping[Pair, Sequence[INN]],
    x: Tensor,
    held_out: HeldOut,
) -> Iterator[Record]:
    """Say how far pairwise maps, which know nothing of each other, lead from where they began."""
    a, b, c = triangle
    for ab, bc, ac in zip(bijections[a, b], bijections[b, c], bijections[a, c], strict=True):
        maps = (ab.transform, bc.transform, ac.inverse_transform)
        yield cycle_scored(network_name(ab), triangle, maps, x, held_out)


def _pairs_in_turn(
    pairs: Sequence[Pair],
    how: Comparison,
    passes: Mapping[Split, Pass],
    held_out: HeldOut,
    parts: Parts,
    in_cycle: set[Pair],
) -> Iterator[tuple[Results, list[INN]]]:
    """Yield the results of each pair, and its bijections if they are in a cycle."""
    if distributed.world_size() > 1:
        how = replace(how, n_jobs=1)  # all ranks train one network together
    kept = parts.kept(len(pairs))
    # A second thread speeds up a network less than a second pair beside it.
    parallel = Parallel(n_jobs=how.n_jobs, return_as="generator")
    works = [
        _PairWork(pair, how, held_out, parts[number], pair in in_cycle)
        for number, pair in enumerate(pairs)
    ]
    made = parallel(
        delayed(work.results)(_rows_of(work.pair, passes), os.getpid())
        for work, is_kept in zip(works, kept, strict=True)
        if not is_kept
    )
    for work, is_kept in zip(works, kept, strict=True):
        yield work.kept() if is_kept else next(made)
    # To its end: joblib takes the rest for abandoned, says so and kills the workers.
    next(made, None)


def _rows_of(pair: Pair, passes: Mapping[Split, Pass]) -> PairRows:
    """Return the rows of both views as arrays, which processes share without a copy."""
    a, b = pair
    return {
        split: (done.rows[a].numpy()[own_rows(split)], done.rows[b].numpy()[own_rows(split)])
        for split, done in passes.items()
    }


@dataclass(frozen=True)
class _PairWork:
    """What there is to do for one pair.

    Attributes:
        pair: The two views.
        how: What to train.
        held_out: What tells the test rows apart.
        part: Where the results are kept.
        in_cycle: Whether the bijections are needed, too.
    """

    pair: Pair
    how: Comparison
    held_out: HeldOut
    part: Part
    in_cycle: bool

    def results(self, rows: PairRows, run: int) -> tuple[Results, list[INN]]:
        """Train bijections, and a free network a direction, and score them held-out.

        Args:
            rows: Of both views.
            run: Process that this one works for, or this one.
        """
        if os.getpid() != run:
            _work_for(run)
        rows = {s: (on_gpu(as_tensor(x)), on_gpu(as_tensor(y))) for s, (x, y) in rows.items()}
        a, b = self.pair
        back: PairRows = {split: (right, left) for split, (left, right) in rows.items()}
        bijections = [
            self._trained(template, rows, f"fit-{n}")
            for n, template in enumerate(self.how.bijections)
        ]
        there_free = self._trained(self.how.mlp, rows, "free-0")
        back_free = self._trained(self.how.mlp, back, "free-1")
        scores = [
            *(partial(self._of_bijection, fitted, rows) for fitted in bijections),
            partial(self._of_free, there_free, a, b, rows),
            partial(self._of_free, back_free, b, a, back),
        ]
        found = list(Parts().divided(len(scores), lambda number: scores[number]()))
        if self.in_cycle and distributed.is_main():
            for fitted, place in zip(bijections, self._places(), strict=False):
                fitted.save(place)
        together = {name: [r for one in found for r in one[name]] for name in found[0]}
        return self.part.finish(together), bijections if self.in_cycle else []

    def kept(self) -> tuple[Results, list[INN]]:
        """Return what :meth:`results` has made and kept."""
        results = self.part.found()
        assert results is not None, "rank 0 has found it"
        return results, [load_aligner(place) for place in self._places() if self.in_cycle]

    def _places(self) -> list[Path]:
        """Return the folder of each bijection, if anything is kept."""
        places = [self.part.lasting(f"bijection-{n}") for n in range(len(self.how.bijections))]
        return [place for place in places if place is not None]

    def _of_bijection(self, fitted: INN, rows: PairRows) -> Results:
        name = network_name(fitted)
        both = bijection_records(name, fitted, self.pair, rows["test"], self.held_out)
        training = training_record(name, *self.pair, fitted, both[0]["round_trip"])
        return {"scores": both, "training": [training]}

    def _of_free(self, fitted: MLPMap, source: View, target: View, rows: PairRows) -> Results:
        found = map_scores(fitted, *rows["test"], self.held_out)
        return {"scores": [score_record("MLP (free)", source, target, found)], "training": []}

    def _trained(self, template: Network, rows: PairRows, name: str) -> Network:
        """Fit a copy of ``template``, the checkpoint chosen on the validation rows."""
        fitted = clone(template)
        if self.how.n_jobs > 1:
            fitted.set_params(progress=False)  # bars of several processes overwrite each other
        kept = self.part.work(name)
        fitted.fit(*rows["train"], validation=rows["validation"], checkpoint=kept)
        if fitted.interrupted_:
            raise KeyboardInterrupt  # what is finished is kept; a map cut short is not
        return fitted


@cache
def _work_for(run: int) -> None:
    """Keep memory as commands do, and end soon after ``run``, even if that has ended before.

    Another run may go on with its checkpoints by then, and two must not write the same.
    """
    give_back_large_buffers()
    threading.Thread(target=_wait_for_the_end, args=(run,), daemon=True).start()


def _wait_for_the_end(run: int) -> None:
    while os.getppid() == run:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)
