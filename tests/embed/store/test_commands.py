"""``fastinn store``."""

import json

import pytest
from store_cases import lay_out, make_blocks, make_header, write
from typer.testing import CliRunner

from fastinn import cli


@pytest.fixture
def run():
    """Run ``fastinn store`` and return its exit code, output, and what it raised."""

    def invoke(*arguments):
        done = CliRunner().invoke(cli.app, ["store", *map(str, arguments)])
        return done.exit_code, done.output, done.exception

    return invoke


@pytest.fixture
def seeds_folder(tmp_path, finished, whole):
    """A folder of two stores, one of them unfinished."""
    lay_out(tmp_path / "seeds" / "a@1", finished)
    unfinished = tmp_path / "seeds" / "b@1"
    header = make_header(model="b")
    write(unfinished, make_blocks(whole, 0, 2), header, 0, 2)
    return tmp_path / "seeds"


def test_ls_lists_a_folder_of_stores(run, seeds_folder, whole):
    code, output, _ = run("ls", seeds_folder, "--json")
    assert code == 0
    (first, a), (second, b) = json.loads(output).items()
    assert (first.endswith("a@1"), second.endswith("b@1")) == (True, True)
    assert (a["rows"], a["finished"], a["layers"]) == (len(whole.keys), True, [0, 3])
    assert a["bytes"] == sum(p.stat().st_size for p in (seeds_folder / "a@1").glob("*/*"))
    assert (b["model"], b["finished"]) == ("b", False)
    assert [writer["finished"] for writer in b["progress"]] == [True, False]
    assert b["progress"][0]["position"] == {"blocks": len(make_blocks(whole, 0, 2))}
    assert "1 of 2" in run("ls", seeds_folder)[1]


def test_verify_passes_a_sound_store(run, seeds_folder, whole):
    code, output, _ = run("verify", seeds_folder / "a@1", "--json")
    (verdict,) = json.loads(output).values()
    assert code == 0
    assert (verdict["rows"], verdict["damages"]) == (len(whole.keys), [])


def test_verify_has_a_line_for_every_damaged_shard(run, seeds_folder):
    names = ["layer=00/part-0-0.safetensors", "tokens/part-1-1.safetensors"]
    for name in names:
        with (seeds_folder / "a@1" / name).open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"\xaa")
    code, output, _ = run("verify", seeds_folder / "a@1")
    assert code == 1
    lines = [line for line in output.splitlines() if "is damaged" in line]
    assert [line.count(str(seeds_folder / "a@1")) for line in lines] == [1, 1]
    assert [name in line for name, line in zip(sorted(names), sorted(lines), strict=True)]
    code, output, _ = run("verify", seeds_folder / "a@1", "--json")
    assert code == 1
    assert len(next(iter(json.loads(output).values()))["damages"]) == 2


def test_export_writes_a_file(run, seeds_folder, tmp_path, whole):
    out = tmp_path / "states.parquet"
    code, output, _ = run("export", seeds_folder / "a@1", out, "--layers", "0", "--json")
    assert (code, json.loads(output)) == (0, {"out": str(out), "rows": len(whole.keys)})
    code, output, _ = run("export", seeds_folder / "a@1", tmp_path / "t.arrow", "--split", "test")
    assert code == 0
    assert "rows are in" in output


MISTAKES = {
    "nowhere": (["ls", "{seeds}/none"], "no store at"),
    "verify nowhere": (["verify", "{seeds}/none"], "no store at"),
    "unfinished": (["export", "{seeds}/b@1", "x.arrow"], "journal-1.jsonl is missing"),
    "ending": (["export", "{seeds}/a@1", "x.txt"], "ends in '.txt'"),
    "layers": (["export", "{seeds}/a@1", "x.arrow", "--layers", "7"], "holds layers [0, 3]"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_raise_what_the_command_line_turns_into_one_line(
    run, seeds_folder, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    _, _, error = run(*(part.format(seeds=seeds_folder) for part in arguments))
    assert isinstance(error, ValueError | OSError)
    assert message in str(error)
    assert "\n" not in str(error)
