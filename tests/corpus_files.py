"""Corpus files of every format, as bytes, from lists of records."""

import csv
import io
import json

BAD = b"\xff\xfe bad"
"""A record that is not UTF-8."""


def txt(records, eol="\n", final=True):
    data = eol.encode().join(r if isinstance(r, bytes) else r.encode() for r in records)
    return data + eol.encode() * (final and bool(records))


def jsonl(records, eol="\n", final=True):
    return txt([_json(r) for r in records], eol, final)


def _json(record):
    if isinstance(record, bytes):
        return b'{"text": "' + record + b'"}'
    return json.dumps({"id": 1, "text": record}, ensure_ascii=len(record) % 2 == 0)


def comma_separated(records, eol="\n", final=True):
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=eol)
    writer.writerow(["id", "text"])
    for number, record in enumerate(records):
        text = record.decode(errors="surrogateescape") if isinstance(record, bytes) else record
        writer.writerow([number, text])
    data = out.getvalue().encode(errors="surrogateescape")
    return data if final else data.removesuffix(eol.encode())


def tab_separated(records, eol="\n", final=True):
    """Write texts as they are: there are no quotes, so no text holds a tab or a line's end."""
    texts = (r if isinstance(r, bytes) else r.encode() for r in records)
    return txt(["id\ttext", *(b"%d\t%b" % row for row in enumerate(texts))], eol, final)


def parquet(records, eol="\n", final=True):
    """Write row groups of 3 rows; a text that is not UTF-8 is written as it is."""
    import pyarrow
    from pyarrow import parquet

    data = pyarrow.array([r if isinstance(r, bytes) else r.encode() for r in records])
    data = data.cast(pyarrow.binary())
    texts = pyarrow.StringArray.from_buffers(len(data), *data.buffers()[1:])
    out = io.BytesIO()
    ids = pyarrow.array(range(len(data)), pyarrow.int64())
    parquet.write_table(pyarrow.table({"id": ids, "text": texts}), out, row_group_size=3)
    return out.getvalue()


WRITE = {
    "txt": txt,
    "jsonl": jsonl,
    "csv": comma_separated,
    "tsv": tab_separated,
    "parquet": parquet,
}
