"""The tables, and that the documents show them."""

import pytest
import table
from table import BENCH, markers, rendered, up_to_date, with_tables

BEGIN, END = markers(BENCH)

MACHINE = {
    "commit": "0123456789abcdef",
    "gpu": None,
    "processor": "Some Processor",
    "instructions": "avx2",
    "threads": 2,
    "versions": {"torch": "2.13.0"},
}
PEER = {"median": 1.318, "low": 1.29, "high": 1.34, "peak_memory": 64 * 2**20}
FIGURE = {
    "bench": "coupling_mlp",
    "case": "forward, h = 768",
    "precision": "exact",
    "backend": "cpu",
    "ns_per_token": 13_104.2,
    "ceiling": {"name": "float32 product", "FLOP/s": 2e11},
    "share_of_ceiling": 0.834,
    "peak_memory": 16 * 2**20,
    "peers": {"torch eager": PEER},
}
STREAMED = {"bench": "cca", "case": "10,000 rows, streamed", "peak_memory": 3 * 2**20}


def content(*figures):
    return {"some": {"machine": MACHINE, "figures": list(figures)}}


def test_a_row_shows_the_figure():
    text = rendered(content(FIGURE))
    assert (
        "Some Processor, kernels for avx2** (threads: 2, torch 2.13.0, commit `0123456789ab`)"
        in text
    )
    assert "| coupling_mlp | precision | backend |" in text
    assert (
        "| forward, h = 768 | exact | cpu | 13,104 | 83% (float32 product) | "
        "16 MiB, 0.25 of torch eager | 1.32x |"
    ) in text


def test_a_peer_that_one_case_lacks_leaves_a_gap():
    other = FIGURE | {"case": "inverse", "peers": {"zuko": PEER}}
    rows = rendered(content(FIGURE, other)).splitlines()
    assert rows[-2].endswith("| 1.32x |  |")
    assert rows[-1].endswith("|  | 1.32x |")


def test_benches_have_tables_of_their_own():
    other = FIGURE | {"bench": "affine_coupling", "ns_per_token": 1.414}
    text = rendered(content(FIGURE, other))
    assert text.index("| affine_coupling |") < text.index("| coupling_mlp |")
    assert "| 1.41 |" in text


def test_memory_alone_is_a_sentence():
    text = rendered(content(FIGURE, STREAMED))
    assert "Peak resident memory of a process: 10,000 rows, streamed: 3 MiB." in text


def test_tables_replace_what_is_between_the_markers():
    text = f"above\n{BEGIN}\nold\n{END}\nbelow\n"
    new = with_tables(text, BENCH, "new")
    assert new == f"above\n{BEGIN}\nnew\n{END}\nbelow\n"
    assert with_tables(new, BENCH, "new") == new


def test_text_without_markers_stays():
    assert with_tables("a document", BENCH, "new") == "a document"


@pytest.mark.parametrize("text", [BEGIN, END, f"{END} {BEGIN}"], ids=["open", "close", "swapped"])
def test_half_a_pair_of_markers_is_an_error(text):
    with pytest.raises(ValueError, match="a document needs"):
        with_tables(text, BENCH, "new")


def test_check_names_the_stale_document(tmp_path, monkeypatch, capsys):
    document = tmp_path / "README.md"
    document.write_text(f"{BEGIN}\nold\n{END}\n")
    monkeypatch.setattr(table, "DOCUMENTS", (document,))
    assert table.main(["--check"]) == 1
    assert "README.md does not show the results" in capsys.readouterr().out
    assert table.main([]) == 0
    assert table.main(["--check"]) == 0


@pytest.mark.parametrize("path", table.DOCUMENTS, ids=lambda path: path.name)
def test_documents_show_the_results(path):
    assert up_to_date(path.read_text()) == path.read_text(), "run: bench/table.py"
