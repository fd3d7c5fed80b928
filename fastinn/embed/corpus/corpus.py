"""A corpus: documents that are read again and again, whole, in splits or in shards."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice, takewhile
from pathlib import Path
from typing import Self

from fastinn import _checks
from fastinn.embed import python_docs
from fastinn.embed.corpus.document import BEGINNING, SPLITS, Cursor, Document, Split, digest
from fastinn.embed.corpus.files import Files
from fastinn.embed.corpus.hub import HubDataset
from fastinn.embed.corpus.narrowing import Narrowing, Shard
from fastinn.embed.corpus.reading import Reading
from fastinn.embed.corpus.records import Held, Source, checked

MAX_CHARACTERS = 1_000_000
"""Longest document unless the caller says otherwise; it is tokenised at once."""


class Corpus:
    """Documents that can be read again and again without being held in memory.

    Blank records and those that cannot be read are left out, reported and counted.

    Args:
        name: What to call it in messages and reports.
        source: Where its records come from.
        max_characters: Longest document; longer ones are left out.

    Attributes:
        readings: What was read so far: of the whole under ``""``, and of each shard by itself,
            such as ``"0/4"``. A corpus, its splits, heads and shards have them in common.
    """

    def __init__(self, name: str, source: Source, *, max_characters: int = MAX_CHARACTERS) -> None:
        self.name = name
        self.readings: dict[str, Reading] = {}
        self._source = source
        self._max_characters = max_characters
        self._narrowings: tuple[Narrowing, ...] = ()
        self._ends_early = False

    @classmethod
    def from_texts(cls, texts: Iterable[str], *, name: str = "texts") -> Self:
        """Make a corpus of texts in memory, a document each."""
        held = [(None, text) for text in texts]
        return cls(name, Held(name, lambda: held))

    @classmethod
    def from_file(
        cls, path: str | Path, *, column: str = "text", max_characters: int = MAX_CHARACTERS
    ) -> Self:
        """Make a corpus of a file, or of a folder of files; see :meth:`from_files`."""
        return cls.from_files([path], column=column, max_characters=max_characters)

    @classmethod
    def from_files(
        cls,
        paths: Sequence[str | Path],
        *,
        column: str = "text",
        max_characters: int = MAX_CHARACTERS,
    ) -> Self:
        """Make a corpus of files, read one after the other, a record at a time.

        Args:
            paths: ``.txt`` (a document a line), ``.jsonl``, ``.csv`` or ``.tsv``, each also as
                ``.gz``, ``.bz2`` or ``.xz``; ``.parquet``; or folders, which stand for all such
                files in them in order of name. Paths with a scheme, such as ``s3://``, are opened
                with fsspec.
            column: Name of the field or column that holds the text, where there are several.
            max_characters: Longest document; longer ones are left out.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If an ending is unknown, the column is missing, or the first record of a
                file shows that it is not what its ending says.
            ImportError: If a file takes a package that is not installed.
        """
        files = Files([str(path) for path in paths], column, max_characters)
        return cls(files.name, files, max_characters=max_characters)

    @classmethod
    def from_dataset(
        cls,
        path: str,
        config: str | None = None,
        *,
        split: str = "train",
        column: str = "text",
        revision: str | None = None,
        data_files: str | Sequence[str] | None = None,
        max_characters: int = MAX_CHARACTERS,
    ) -> Self:
        """Make a corpus of a data set that Hugging Face ``datasets`` can stream.

        Args:
            path: Hub id, folder of a data set, or a builder of ``datasets`` such as ``"parquet"``.
            config: Which of its configurations.
            split: Which of its own splits; all splits of this corpus are drawn from it.
            column: Column that holds the text.
            revision: Commit, tag or branch on the hub.
            data_files: Files that a builder is to read.
            max_characters: Longest document; longer ones are left out.

        Raises:
            ImportError: If ``datasets`` is not installed.
            ValueError: If there is no such configuration, split or column.
            FileNotFoundError: If there is no such data set.
        """
        dataset = HubDataset(path, config, split, column, revision, data_files)
        return cls(dataset.name, dataset, max_characters=max_characters)

    @classmethod
    def python_docs(cls, *, packages: bool = False) -> Self:
        """Make a corpus of this Python's own documentation: docstrings and help topics.

        A document is a module or a topic. A paragraph that was seen before is left out, so that
        no held-out document repeats a training one.

        Args:
            packages: Go on with the docstrings of the installed packages.
        """
        name = "python-docs+packages" if packages else "python-docs"
        return cls(name, Held(name, cache(lambda: list(python_docs.documents(packages=packages)))))

    def split(self, split: Split) -> Self:
        """Keep the documents of one split; which is decided by the hash of each document."""
        _checks.one_of(split, tuple(SPLITS), "split")
        low, high = SPLITS[split]
        return self._narrowed(
            f"{self.name}/{split}",
            lambda documents, _: (d for d in documents if low <= d.place < high),
        )

    def head(self, n_documents: int) -> Self:
        """Keep the first ``n_documents`` documents."""

        def first(documents: Iterator[Document], start: Cursor) -> Iterator[Document]:
            return islice(documents, n_documents - self._count_before(start, n_documents))

        narrowed = self._narrowed(f"{self.name}[:{n_documents}]", first)
        narrowed._ends_early = True
        return narrowed

    def shard(self, index: int, count: int) -> Self:
        """Keep the documents of one of ``count`` shards, which share no document and lose none.

        Groups of 64 consecutive records go to the shards in turn, so that shards are of about
        equal size and each keeps the order of the corpus. A shard may be empty.

        Args:
            index: Which shard, counted from 0.
            count: Number of shards.

        Raises:
            ValueError: If there is no such shard.
        """
        outer = [shard.stride * shard.count for shard in self._shards]
        return self._narrowed(self.name, Shard(index, count, stride=outer[-1] if outer else 1))

    @property
    def reading(self) -> Reading:
        """What was read so far and what was left out.

        Splits and heads of a corpus share it; one of several shards has its own.
        """
        shards = [f"{shard.index}/{shard.count}" for shard in self._shards if shard.count > 1]
        return self.readings.setdefault(" ".join(shards), Reading())

    def documents(self, start: Cursor = BEGINNING) -> Iterator[Document]:
        """Iterate over the documents behind ``start``, which files seek and do not read up to.

        Args:
            start: ``end`` of a document of this corpus, or of any split, head or shard of it.

        Raises:
            ValueError: If the corpus is read from its beginning and holds no document, or
                ``start`` is no place in it.
            OSError: If a file cannot be read.
        """
        found = False
        for document in self._narrow(start):
            found = True
            yield document
        if not found and not self._shards and start == BEGINNING:
            wanted = "more documents" if self._narrowings else "text in it"
            raise ValueError(f"corpus {self.name} holds no text; give a corpus with {wanted}")

    def __iter__(self) -> Iterator[Document]:
        """Iterate over all documents."""
        return self.documents()

    def identity(self) -> str:
        """Return what tells the whole text, of which this may be a part, from any other.

        Unlike :meth:`fingerprint` it costs hardly anything: a change within a file of more than a
        megabyte that alters neither its size nor its beginning, middle or end goes unnoticed.
        """
        return f"{self._source.identity}, documents of at most {self._max_characters:,} characters"

    def share_before(self, place: Cursor) -> float | None:
        """Return which share of the whole text is in front of ``place``, to tell how far one is.

        ``None`` where nobody knows before the end: heads, streamed data sets, compressed and remote
        files.
        """
        return None if self._ends_early else self._source.share_before(place)

    def fingerprint(self) -> str:
        """Hash of every document in order, 32 hexadecimal digits."""
        whole = hashlib.blake2b(digest_size=16)
        for document in self:
            whole.update(digest(document.text))
        return whole.hexdigest()

    @property
    def _shards(self) -> tuple[Shard, ...]:
        return tuple(n for n in self._narrowings if isinstance(n, Shard))

    def _narrow(self, start: Cursor) -> Iterator[Document]:
        documents = self._all(start)
        for narrowing in self._narrowings:
            documents = narrowing(documents, start)
        return documents

    def _all(self, start: Cursor) -> Iterator[Document]:
        """Iterate over the documents behind ``start`` that the narrowings choose from."""
        shards, reading = self._shards, self.reading
        for content, key, place, end in self._source.records(start):
            number = end.number - 1
            content = checked(content, self._max_characters)
            if all(shard.holds(number) for shard in shards):
                reading.count(number, content, place)
            if isinstance(content, str):
                yield Document(number, content, content if key is None else key, end)

    def _count_before(self, start: Cursor, most: int) -> int:
        """Count the documents in front of ``start``, up to ``most``."""
        if start == BEGINNING:
            return 0
        before = takewhile(lambda d: d.number < start.number, self._narrow(BEGINNING))
        return sum(1 for _ in islice(before, most))

    def _narrowed(self, name: str, narrowing: Narrowing) -> Self:
        narrowed = type(self)(name, self._source, max_characters=self._max_characters)
        narrowed.readings = self.readings
        narrowed._narrowings = (*self._narrowings, narrowing)
        narrowed._ends_early = self._ends_early
        return narrowed
