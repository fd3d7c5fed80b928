import pytest

from fastinn import _progress, distributed
from fastinn._progress import progress


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(_progress, "_SECONDS_A_LINE", 0.0)


@pytest.mark.usefixtures("every_step")
def test_a_log_gets_lines(capsys):
    assert list(progress("abc", "read", unit=" blocks")) == ["a", "b", "c"]
    out, err = capsys.readouterr()
    assert not out
    assert "\r" not in err
    lines = err.splitlines()
    assert all(line.startswith("read: ") for line in lines)
    assert "3/3" in lines[-1]
    assert "blocks" in lines[-1]


@pytest.mark.usefixtures("every_step")
def test_what_update_counts_is_told_with_its_postfix(capsys):
    with progress(label="train", total=2) as bar:
        bar.set_postfix(there=0.5, refresh=False)
        bar.update()
    assert "1/2" in (line := capsys.readouterr().err.splitlines()[-1])
    assert "there=0.5" in line


@pytest.mark.usefixtures("every_step")
def test_work_within_work_gets_lines_of_its_own(capsys):
    for _ in progress("ab", "pairs"):
        assert list(progress("cd", "train")) == ["c", "d"]
    lines = capsys.readouterr().err.splitlines()
    assert {line.partition(":")[0] for line in lines} == {"pairs", "train"}


def test_short_work_is_not_told_to_a_log(capsys):
    assert list(progress(range(3), "read")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(progress(range(3), "read")) == [0, 1, 2]
    assert "\rread: 100%" in capsys.readouterr().err


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("why", ["not shown", "another rank"])
def test_nothing_is_told(capsys, monkeypatch, why):
    monkeypatch.setattr(distributed, "is_main", lambda: why == "not shown")
    assert list(progress(range(3), "read", shown=why != "not shown")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
