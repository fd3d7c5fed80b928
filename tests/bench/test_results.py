"""The results file: growing, resuming, and saying nothing about the host."""

import getpass
import json
import socket

import machine
import pytest
from results import FOLDER, Results, location, read_all

MACHINE = {"commit": "abc", "processor": "some"}


def figure(case="forward", **changes):
    return {"bench": "op", "case": case, "precision": "exact", "backend": "cpu", **changes}


def cases(path):
    return [each["case"] for each in json.loads(path.read_text())["figures"]]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "machine.json"


def test_every_figure_is_on_disk_at_once(path):
    results = Results(path, MACHINE)
    results.add(figure("forward"))
    assert cases(path) == ["forward"]
    results.add(figure("inverse"))
    assert cases(path) == ["forward", "inverse"]


def test_a_figure_replaces_the_older_one_of_its_case(path):
    results = Results(path, MACHINE)
    results.add(figure(error=1.0))
    results.add(figure(error=2.0))
    results.add(figure(error=3.0, precision="fast"))
    assert [each["error"] for each in results.figures] == [2.0, 3.0]


def test_a_second_run_of_the_same_commit_adds(path):
    Results(path, MACHINE).add(figure("forward"))
    Results(path, MACHINE).add(figure("inverse"))
    assert cases(path) == ["forward", "inverse"]


def test_figures_of_another_commit_are_dropped(path):
    Results(path, MACHINE).add(figure("forward"))
    Results(path, MACHINE | {"commit": "def"}).add(figure("inverse"))
    assert cases(path) == ["inverse"]


def test_without_a_file_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Results(None, MACHINE).add(figure())
    assert not list(tmp_path.iterdir())


def test_names_go_to_the_folder_of_results_and_paths_anywhere(tmp_path):
    assert location("xeon") == FOLDER / "xeon.json"
    assert location(str(tmp_path / "h200.json")) == tmp_path / "h200.json"


def test_other_files_of_the_folder_are_no_results(tmp_path):
    (tmp_path / "demo.json").write_text('{"title": "demo"}')
    Results(tmp_path / "xeon.json", MACHINE).add(figure())
    assert list(read_all(tmp_path)) == ["xeon"]


def test_description_names_neither_host_nor_user_nor_paths():
    found = machine.description("cpu")
    text = json.dumps(found)
    assert socket.gethostname() not in text
    assert f"/{getpass.getuser()}" not in text
    assert str(machine.ROOT) not in text
    assert found["versions"]["torch"]
    assert found["instructions"]


def test_commit_can_be_named(monkeypatch):
    monkeypatch.setenv("FASTINN_COMMIT", "0123abc")
    assert machine.commit() == "0123abc"


def test_commit_outside_a_repository_is_unknown(monkeypatch, tmp_path):
    monkeypatch.delenv("FASTINN_COMMIT", raising=False)
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert machine.commit() == "unknown"
