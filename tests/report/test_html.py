import errno
import json
import math
import re
from html.parser import HTMLParser

import pytest
from plotly.offline import get_plotlyjs

from fastinn.report import write_report
from fastinn.report.tables import decimal, fits, method_rows

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """The elements of a page, the JSON of its figures and its visible text."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.plots, self.text = [], [], ""
        self.source = path.read_text(encoding="utf-8").replace(get_plotlyjs(), "")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        tag, attributes = self.elements[-1] if self.elements else ("", {})
        if tag == "script" and attributes.get("type") == "application/json" and data.strip():
            self.plots.append(data)
        elif tag not in ("script", "style"):
            self.text += data

    def count(self, tag):
        return sum(name == tag for name, _ in self.elements)


@pytest.fixture
def page(results, tmp_path):
    return Page(write_report(results, tmp_path / "report.html"))


def test_the_page_loads_nothing_from_outside(page):
    assert not re.search(r"https?://|@import|url\(", page.source)
    assert page.count("link") == page.count("img") == page.count("iframe") == 0
    assert all("src" not in attributes for _, attributes in page.elements)
    policy = next(a["content"] for _, a in page.elements if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_plotly_is_inlined_once_and_the_page_stays_small(results, tmp_path):
    text = write_report(results, tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count(get_plotlyjs()) == 1
    assert len(text.encode()) < 6e6


def test_every_score_of_the_last_layer_is_printed(results, page):
    found = fits(results)
    for row in method_rows(found):
        for summary in (row.forward, row.backward, row.forward_error, row.backward_error):
            assert decimal(summary.mean) in page.text
            assert summary.span in page.text
    for fit in found:
        assert decimal(fit.forward["r2"]) in page.text
        assert decimal(fit.backward["r2"]) in page.text


def test_what_was_run_is_on_the_page(results, page):
    facts = [results["command"], results["corpus"]["hash"], results["corpus"]["tokenizer_hash"]]
    facts += [model["weights_hash"] for model in results["models"]]
    facts += [*results["versions"].values(), "inn.max_steps", "1500", "150,000", "93 seconds"]
    assert [fact for fact in facts if fact not in page.text] == []


def test_headings_captions_and_names_for_a_screen_reader(page):
    assert page.count("h1") == 1
    assert page.count("table") == page.count("caption")
    plots = [a for tag, a in page.elements if tag == "div" and a.get("class") == "plot"]
    assert len(plots) == page.count("figure") == 6
    assert all(attributes["aria-label"] for attributes in plots)


def test_every_method_and_measure_is_on_a_menu(page):
    assert page.count("select") == 3
    assert page.count("option") == 4 + 4 + 4
    assert len(page.plots) == 12 + 3
    selected = [attributes for tag, attributes in page.elements if "selected" in attributes]
    assert len(selected) == 2  # least squares, of both heat maps of R2


@pytest.mark.parametrize("name", ["seed-1", "ridge", "linear CKA", "fastinn demo", "python-docs"])
def test_hostile_names_stay_text(results, page, tmp_path, name):
    hostile = json.loads(json.dumps(results).replace(json.dumps(name), json.dumps(HOSTILE)))
    attacked = Page(write_report(hostile, tmp_path / "hostile.html"))
    assert attacked.count("script") == page.count("script")
    assert attacked.count("img") == 0
    assert HOSTILE in attacked.text
    assert not any("<" in plot for plot in attacked.plots)


@pytest.mark.parametrize("bad", [math.nan, -math.inf, None], ids=["nan", "inf", "null"])
def test_a_score_that_is_not_finite_is_said_and_breaks_nothing(results, tmp_path, bad):
    next(fit for fit in fits(results) if fit.method == "ridge").forward["r2"] = bad
    page = Page(write_report(results, tmp_path / "report.html"))
    assert "1 not finite" in page.text
    for plot in page.plots:
        json.loads(plot, parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("part", "heading"),
    [
        ("scores", "Both directions"),
        ("similarities", "Similarity of layers"),
        ("spectra", "Canonical-correlation spectrum"),
        ("training", "Training"),
        ("models", "Hash of the weights"),
        ("corpus", "Text per split"),
        ("versions", "Versions"),
        ("settings", "Settings"),
        ("null_bands", None),
    ],
)
@pytest.mark.parametrize("emptied", [False, True], ids=["absent", "empty"])
def test_a_missing_part_is_left_out(make_results, tmp_path, part, heading, emptied):
    results = make_results(n_seeds=2, n_layers=1)
    results[part] = type(results[part])()
    if not emptied:
        del results[part]
    page = Page(write_report(results, tmp_path / "report.html"))
    assert heading is None or heading not in page.text


def test_no_results_at_all_still_give_a_page(tmp_path):
    page = Page(write_report({}, tmp_path / "report.html"))
    assert page.count("h1") == 1
    assert page.count("figure") == page.count("table") == 0


def test_a_full_disk_keeps_the_old_page_and_leaves_no_scraps(results, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("the old page")

    def fill_up(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fill_up)
    with pytest.raises(OSError, match="No space left"):
        write_report(results, path)
    assert path.read_text() == "the old page"
    assert list(tmp_path.iterdir()) == [path]


def test_the_path_written_is_returned(tmp_path):
    path = write_report({}, str(tmp_path / "report.html"))
    assert path == tmp_path / "report.html"
    assert path.is_file()
