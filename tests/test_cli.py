import errno
import json
import re
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from labelled_texts import make_labelled
from safetensors.torch import load_file
from tiny_seeds import make_texts
from tolerances import R2_HIGH, SAME_STATES, SHARDED
from typer.main import get_command
from typer.testing import CliRunner

import fastinn
from fastinn import Encoder, Moments, cli
from fastinn.align import INN
from fastinn.cli import _terminal
from fastinn.cli._options import budget, names_of
from fastinn.report.folder import RunFolder
from fastinn.study import passes

COMMANDS = [
    "demo",
    "extract",
    "moments",
    "compare",
    "align",
    "attention",
    "finetune",
    "stitch",
    "plot",
    "sanity",
    "doctor",
    "seeds",
    "seeds train",
    "seeds list",
    "store ls",
    "store verify",
    "store export",
]
QUICK = ["--max-steps", "5", "--json"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "corpus.txt"
    path.write_text("\n".join(f"{text} {i % 7}" for i, text in enumerate(make_texts(150))))
    return str(path)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command as ``fastinn`` does, and return its exit code, stdout and stderr."""

    def invoke(*arguments):
        monkeypatch.setattr(sys, "argv", ["fastinn", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, *capsys.readouterr()

    return invoke


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command):
    shown = CliRunner().invoke(cli.app, [*command.split(), "--help"]).output
    assert "Example: fastinn" in shown or command == "seeds"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_has_a_help_text(command):
    found = get_command(cli.app)
    for part in command.split():
        found = found.commands[part]
    assert not [parameter.name for parameter in found.params if not parameter.help]


def test_compare_writes_results_and_report(run, seeds, corpus, tmp_path):
    out = tmp_path / "out"
    code, stdout, _ = run("compare", *seeds, "--corpus", corpus, "--out", out, *QUICK)
    assert code == 0
    results = json.loads(stdout)
    assert results == json.loads((out / "results.json").read_text())
    assert {r["method"] for r in results["scores"]} >= {"INN (two-way)", "CCA map"}
    assert "<html" in (out / "report.html").read_text()


def test_several_files_of_text_are_one_corpus(run, seeds, corpus, tmp_path):
    table = tmp_path / "b.csv"
    table.write_text("text\nword a,b\nworda wordb\n")
    files = ["--corpus", corpus, "--corpus", table]
    how = ["--method", "linear", "--json", "--out", tmp_path / "map"]
    code, _, stderr = run("align", *seeds, *files, *how)
    assert code == 2
    assert stderr == f"fastinn: {table}:2 has 2 fields, the header names 1\n"
    table.write_text("text\nworda wordb\nword a,b\n")
    code, stdout, stderr = run("align", *seeds, *files, *how)
    assert code == 0
    assert json.loads(stdout)
    assert f"{table}:3 left out: it has 2 fields, the header names 1" in stderr


def test_compare_trains_hub_and_bert_inn_at_cells(run, seeds, corpus, tmp_path):
    options = ["--networks", "-1,1:2", "--hub", seeds[1], "--hub-steps", "8", "--published"]
    options += ["--cells", "same-layer"]
    code, stdout, _ = run(
        "compare", *seeds, "--corpus", corpus, "--out", tmp_path, *options, *QUICK
    )
    assert code == 0
    results = json.loads(stdout)
    cells = {(r["method"], r["source_layer"], r["target_layer"]) for r in results["scores"]}
    assert cells >= {
        ("INN (two-way)", 1, 2),
        ("BERT-INN (forward)", 1, 2),
        ("hub INN (two-way, seed-1)", 3, 3),
    }
    assert results["settings"]["hub"] == "seed-1"
    steps = {record["method"]: record["steps"][-1] for record in results["training"]}
    assert steps["INN (two-way)"] == 5
    assert steps["hub INN (two-way, seed-1)"] == 8
    assert "hub INN (two-way, seed-1), one map a model" in (tmp_path / "report.html").read_text()


def test_a_time_is_no_number_of_steps():
    assert budget(None, None) == {"max_steps": INN().max_steps}
    assert budget(7, None) == {"max_steps": 7}
    assert INN(**budget(None, 9)).max_seconds == 9
    assert budget(None, 9)["max_steps"] is None


def test_compare_trains_forward_for_some_time(run, seeds, corpus, tmp_path):
    options = ["--objective", "forward", "--published", "--max-seconds", "0.2", "--hidden", "24"]
    run_of = ["compare", *seeds, "--corpus", corpus, "--out", tmp_path, *options, "--json"]
    code, stdout, _ = run(*run_of)
    assert code == 0
    results = json.loads(stdout)
    for network in ("INN", "BERT-INN", "MLP"):
        assert results["settings"][network]["max_seconds"] == 0.2
    assert [results["settings"][network]["hidden"] for network in ("INN", "MLP")] == [24, 24]
    trained = {record["method"]: record for record in results["training"]}
    assert trained.keys() == {"INN (forward)", "BERT-INN (forward)"}
    assert all("inverse_r2" not in record for record in trained.values())


@pytest.fixture
def levels(monkeypatch):
    """Note which levels encoders were asked for."""
    asked = []
    whole = Encoder.__init__

    def noted(self, *args, level="token", **kwargs):
        asked.append(level)
        whole(self, *args, level=level, **kwargs)

    monkeypatch.setattr(Encoder, "__init__", noted)
    return asked


def test_the_published_protocol(run, seeds, corpus, tmp_path, levels):
    options = ["--protocol", "paper", "--cells", "same-layer", *QUICK]
    code, stdout, _ = run("compare", *seeds, "--corpus", corpus, "--out", tmp_path, *options)
    assert code == 0
    assert levels == ["sentence", "sentence"]
    results = json.loads(stdout)
    assert results["corpus"]["level"] == "sentence"
    assert results["settings"]["network rows"] == 1600
    assert {r["method"] for r in results["scores"]} >= {"INN (forward)", "BERT-INN (forward)"}


def test_options_go_before_the_published_protocol_and_stores_have_it_too(
    run, seeds, corpus, tmp_path
):
    extract = ["extract", *seeds, "--corpus", corpus, "--level", "sentence", "--json"]
    code, stdout, _ = run(*extract, "--out", tmp_path / "states")
    assert code == 0
    options = ["--protocol", "paper", "--objective", "two-way", "--max-rows", "300", *QUICK]
    code, stdout, _ = run("compare", *json.loads(stdout), "--out", tmp_path / "out", *options)
    assert code == 0
    results = json.loads(stdout)
    assert results["settings"]["network rows"] == 300
    assert {r["method"] for r in results["scores"]} >= {"INN (two-way)", "BERT-INN (forward)"}


def test_revisions_tell_models_apart():
    assert names_of(["a/bert@one", "a/bert@two"]) == {
        "bert@one": "a/bert@one",
        "bert@two": "a/bert@two",
    }
    assert names_of(["a/bert@one", "b/roberta@one"]) == {
        "bert": "a/bert@one",
        "roberta": "b/roberta@one",
    }
    assert list(names_of(["sftp://me@host/states/bert@one"])) == ["bert"]
    with pytest.raises(ValueError, match="two models have the same name in a/bert, b/bert"):
        names_of(["a/bert", "b/bert"])


def test_folders_are_named_whatever_is_above_them(tmp_path):
    folder = tmp_path / "me@home" / "bert"
    folder.mkdir(parents=True)
    assert list(names_of([str(folder)])) == ["bert"]


@pytest.mark.parametrize("given", [".", "./", "../bert@one", "sub/.."])
def test_folders_have_a_name_however_they_are_given(tmp_path, monkeypatch, given):
    (tmp_path / "bert@one" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "bert@one")
    assert list(names_of([given])) == ["bert"]
    assert list(names_of([given, "b/bert@two"])) == ["bert@one", "bert@two"]


def test_a_hub_is_named_as_results_name_it_or_as_it_was_given(run, stored, tmp_path):
    other = tmp_path / "seed-0@two"
    other.symlink_to(stored[0])
    options = ["--networks", "-1", "--cells", "same-layer", *QUICK]
    for place, hub in enumerate(["seed-0@two", f"{other}/"]):
        out = ["--out", tmp_path / str(place)]
        code, stdout, _ = run("compare", stored[0], other, "--hub", hub, *options, *out)
        assert code == 0
        assert json.loads(stdout)["settings"]["hub"] == "seed-0@two"


def test_stores_of_more_texts_are_not_the_published_protocol(run, stored, tmp_path, monkeypatch):
    code, _, stderr = run("compare", *stored, "--protocol", "paper", "--out", tmp_path)
    assert code == 2
    assert "holds level 'token', 'sentence' is wanted" in stderr
    monkeypatch.setattr("fastinn.cli.compare.PAPER_DOCUMENTS", 20)
    options = ["--protocol", "paper", "--level", "token", "--out", tmp_path]
    code, _, stderr = run("compare", *stored, *options)
    assert code == 2
    assert "texts and the published protocol has 20" in stderr


def test_the_seed_of_a_sanity_check_reaches_the_networks(run, seeds, corpus):
    def errors(random_state):
        options = ["--corpus", corpus, "--strengths", "1.2", "--max-steps", "0", "--json"]
        code, stdout, _ = run("sanity", seeds[0], *options, "--random-state", random_state)
        assert code == 0
        return {
            r["relative_mse"]
            for r in json.loads(stdout)
            if (r["bijection"], r["method"]) == ("identity", "PublishedBertINN")
        }

    assert errors(0) != errors(1)


def test_an_interrupted_comparison_of_attention_keeps_what_is_finished(
    run, seeds, corpus, tmp_path, monkeypatch
):
    def interrupted(encoders, text, how, *, save, **_):
        save({"title": "attention", "scores": []})
        raise KeyboardInterrupt

    monkeypatch.setattr("fastinn.cli.attention.compare_attention", interrupted)
    code, _, stderr = run("attention", *seeds, "--corpus", corpus, "--out", tmp_path)
    assert code == 130
    assert f"interrupted; what was finished is in {tmp_path / 'report.html'}" in stderr


@pytest.mark.parametrize("command", ["compare", "align"])
def test_levels_reach_the_encoders(run, seeds, corpus, tmp_path, levels, command):
    options = ["--level", "word", "--out", tmp_path, *QUICK]
    assert run(command, *seeds, "--corpus", corpus, *options)[0] == 0
    assert levels == ["word", "word"]


def test_sanity_names_every_strength(run, seeds, corpus):
    options = ["--corpus", corpus, "--strengths", "1.2,2", "--max-steps", "3", "--json"]
    code, stdout, _ = run("sanity", seeds[0], *options)
    assert code == 0
    found = {(r["bijection"], r["strength"]) for r in json.loads(stdout)}
    assert found == {
        *[(name, s) for name in ("bert-inn", "mixed") for s in (1.2, 2.0)],
        *[("rotation", None), ("identity", None)],
    }


def test_sanity_says_what_it_reads(run, seeds, corpus):
    options = ["--corpus", corpus, "--strengths", "1", "--max-steps", "0"]
    code, stdout, _ = run("sanity", seeds[0], *options)
    assert code == 0
    assert stdout.startswith("To read: ")


def test_compare_refuses_a_folder_that_holds_another_run(run, seeds, corpus, tmp_path):
    (tmp_path / "results.json").write_text("{}")
    code, _, stderr = run("compare", *seeds, "--corpus", corpus, "--out", tmp_path)
    assert code == 2
    assert "holds another run; give another folder with --out" in stderr
    assert (tmp_path / "results.json").read_text() == "{}"


def test_a_finished_run_is_not_gone_on_with(run, stored, tmp_path, monkeypatch):
    """Even if it was killed while its checkpoints went."""
    with monkeypatch.context() as patched:
        patched.setattr("fastinn.report.folder.shutil.rmtree", lambda *args, **kwargs: None)
        assert run("moments", *stored, "--out", tmp_path)[0] == 0
    code, _, stderr = run("moments", *stored, "--out", tmp_path)
    assert code == 2
    assert "holds another run" in stderr
    assert not list(tmp_path.glob("checkpoints*"))


def test_two_runs_do_not_share_a_folder(run, stored, tmp_path):
    """Not even one that may replace what is there: the other has not ended."""
    with RunFolder(tmp_path, overwrite=False) as other:
        other.checkpoints.mkdir()
        code, stdout, stderr = run("moments", *stored, "--out", tmp_path, "--overwrite")
        assert (code, stdout) == (2, "")
        assert stderr == (
            f"fastinn: another process writes to {tmp_path}; wait for it to end, or give another "
            "folder with --out\n"
        )
        assert other.checkpoints.exists()
    assert run("moments", *stored, "--out", tmp_path)[0] == 0


def test_a_folder_is_free_after_a_run_that_was_refused(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(FileExistsError, match="holds another run") as refused:
        RunFolder(tmp_path, overwrite=False)
    with RunFolder(tmp_path, overwrite=True) as folder:
        assert folder.path == tmp_path
    assert refused.traceback  # which keeps alive what was refused


def test_a_folder_that_cannot_be_locked_is_named(tmp_path, monkeypatch):
    def unlockable(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fastinn.report.folder.fcntl.flock", unlockable)
    with pytest.raises(OSError, match=r"Function not implemented: '.*\.lock'"):
        RunFolder(tmp_path, overwrite=False)


@pytest.mark.parametrize("method", ["inn", "bert-inn", "mlp", "cca", "procrustes", "linear"])
def test_align_saves_a_map_that_loads(run, seeds, corpus, tmp_path, method):
    out = tmp_path / "map"
    brief = QUICK if method in ("inn", "bert-inn", "mlp") else ["--json"]
    options = ["--method", method, "--corpus", corpus, "--out", out, *brief]
    code, stdout, _ = run("align", *seeds, "--layer", "2", *options)
    assert code == 0
    scores = json.loads(stdout)
    assert scores[method]["r2"] <= 1
    aligner = fastinn.load_aligner(out)
    assert aligner.n_features_in_ == 16


@pytest.mark.parametrize("method", ["inn", "bert-inn", "procrustes"])
def test_align_refuses_other_widths_before_it_reads(run, seeds, corpus, tmp_path, method):
    wide, out = tmp_path / "wide", tmp_path / "map"
    shutil.copytree(seeds[1], wide)
    config = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
    options = ["--method", method, "--corpus", corpus, "--out", out]
    code, _, stderr = run("align", seeds[0], wide, *options)
    assert (code, out.exists()) == (2, False)
    assert f"has 16 features and the target 32, --method {method} needs equally many" in stderr
    assert "give --method linear, mlp or cca" in stderr


@pytest.fixture(scope="module")
def stored(seeds, corpus, tmp_path_factory):
    """Folders of the stores of two seeds, layers 0 and 3."""
    folder = tmp_path_factory.mktemp("states")
    arguments = [*seeds, "--corpus", corpus, "--layers", "0,-1", "--out", str(folder), "--json"]
    shown = CliRunner().invoke(cli.app, ["extract", *arguments], catch_exceptions=False)
    paths = list(json.loads(shown.stdout))
    assert paths == [str(folder / f"seed-{i}@local") for i in range(2)]
    return paths


def test_store_ls_lists_what_was_extracted(run, stored, corpus):
    folder = Path(stored[0]).parent
    code, stdout, _ = run("store", "ls", folder, "--json")
    assert code == 0
    n_words = sum(len(line.split()) for line in Path(corpus).read_text().splitlines())
    for record in json.loads(stdout).values():
        assert (record["rows"], record["layers"], record["finished"]) == (n_words, [0, 3], True)


def rows_of(stored, split):
    """Float64 rows of each view of some stores, about their mean."""
    views = {}
    for path in stored:
        store = fastinn.EmbeddingStore(path).split(split)
        for layer, rows in store.read(0, len(store)).rows.items():
            views[Path(path).name.partition("@")[0], layer] = rows.double() - rows.double().mean(0)
    return views


@pytest.mark.parametrize("cells", ["same-layer", "all"])
def test_moments_of_stores_are_those_of_their_models(run, seeds, stored, corpus, tmp_path, cells):
    options = ["--exact", "--cells", cells, "--json"]
    live, read = tmp_path / "live", tmp_path / "read"
    text = ["--corpus", corpus, "--layers", "0,3"]
    code, stdout, _ = run("moments", *seeds, *text, *options, "--out", live)
    assert code == 0
    assert run("moments", *stored, *options, "--out", read)[:2] == (0, stdout)
    for split in ("train", "validation", "test"):
        of_models, of_stores = (Moments.load(f / f"{split}.safetensors") for f in (live, read))
        assert of_stores.n_rows == of_models.n_rows == json.loads(stdout)[split]["rows"]
        assert of_stores.views == of_models.views
        rows = rows_of(stored, split)
        for a, b in product(of_models.views, repeat=2):
            if a == b or (a[0] != b[0] and (cells == "all" or a[1] == b[1])):
                found, live_cov = of_stores.cov(a, b), of_models.cov(a, b)
                torch.testing.assert_close(found, live_cov, rtol=0, atol=SAME_STATES)
                exact = rows[a].T @ rows[b] / len(rows[a])
                torch.testing.assert_close(found, exact, rtol=0, atol=SHARDED)
    assert json.loads((read / "moments.json").read_text())["splits"] == json.loads(stdout)


def test_align_and_compare_on_stores(run, seeds, stored, corpus, tmp_path):
    linear = ["--method", "linear", "--json", "--out"]
    assert run("align", *seeds, "--corpus", corpus, *linear, tmp_path / "live")[0] == 0
    code, stdout, _ = run("align", *stored, *linear, tmp_path / "read")
    assert code == 0
    live = json.loads((tmp_path / "live" / "scores.json").read_text())
    assert json.loads(stdout)["linear"] == pytest.approx(live["linear"], abs=R2_HIGH)
    assert not (tmp_path / "read" / "checkpoints").exists()
    assert fastinn.load_aligner(tmp_path / "read").n_features_in_ == 16
    code, stdout, _ = run("align", *stored, "--out", tmp_path / "inn", *QUICK)
    assert code == 0
    assert json.loads(stdout)["inn"]["r2"] <= 1
    code, stdout, _ = run("compare", *stored, "--out", tmp_path / "compared", *QUICK)
    assert code == 0
    results = json.loads(stdout)
    found = [r for r in results["scores"] if r["method"] == "least squares"]
    assert len(found) == 8
    last = {"source": "seed-0", "source_layer": 3, "target_layer": 3}
    (same,) = (r for r in found if last.items() <= r.items())
    assert same["r2"] == pytest.approx(live["linear"]["r2"], abs=R2_HIGH)
    assert (tmp_path / "compared" / "report.html").exists()


def killed_behind(n_blocks, patch):
    """Let a pass fail behind its ``n_blocks``-th block, as a kill does."""
    added, whole = [], passes._Reading._add

    def failing(reading, block):
        if len(added) == n_blocks:
            raise KeyError("killed")
        added.append(block)
        whole(reading, block)

    patch.setattr(passes._Reading, "_add", failing)
    return added


def test_moments_go_on_from_checkpoints(run, seeds, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("fastinn._checkpoint._SHARE", 1.0)
    how = ["--corpus", corpus, "--tokens-per-block", 100, "--every", 0, "--json", "--out"]
    code, expected, _ = run("moments", *seeds, *how, tmp_path / "whole")
    assert code == 0
    with monkeypatch.context() as patch:
        killed_behind(9, patch)
        with pytest.raises(KeyError):
            run("moments", *seeds, *how, tmp_path / "killed")
    assert (tmp_path / "killed" / "checkpoints").exists()
    with monkeypatch.context() as patch:
        again = killed_behind(10**6, patch)
        assert run("moments", *seeds, *how, tmp_path / "killed")[:2] == (0, expected)
    with monkeypatch.context() as patch:
        anew = killed_behind(10**6, patch)
        assert run("moments", *seeds, *how, tmp_path / "killed", "--overwrite")[0] == 0
    assert len(again) == len(anew) - 9
    for split in ("train", "validation", "test"):
        file = f"{split}.safetensors"
        whole, killed = (load_file(tmp_path / f / file) for f in ("whole", "killed"))
        assert all(torch.equal(killed[name], tensor) for name, tensor in whole.items())
    assert not (tmp_path / "killed" / "checkpoints").exists()


def test_a_folder_with_moments_is_refused(run, stored, tmp_path):
    out = ["--out", tmp_path, "--json"]
    assert run("moments", *stored, *out)[0] == 0
    before = (tmp_path / "test.safetensors").read_bytes()
    code, _, stderr = run("moments", *stored, *out)
    assert code == 2
    assert "holds another run; give another folder with --out, or --overwrite" in stderr
    assert (tmp_path / "test.safetensors").read_bytes() == before
    assert run("moments", *stored, *out, "--overwrite")[0] == 0


def test_what_a_text_leaves_out_is_reported_by_all_that_read_it(run, seeds, tmp_path, monkeypatch):
    """Also what comes so late that the estimate does not see it."""
    monkeypatch.setattr("fastinn.embed.estimate._COUNTED_SECONDS", 0.0)
    path = tmp_path / "corpus.txt"
    lines = [f"{text} {i % 7}".encode() for i, text in enumerate(make_texts(80))]
    path.write_bytes(b"\n".join([*lines, b"\xff\xfe"]))
    for command in ("extract", "moments", "align", "compare"):
        options = {"align": ["--method", "linear"], "compare": ["--networks", ""]}
        out = ["--out", tmp_path / command, "--json", *options.get(command, [])]
        code, _, stderr = run(command, *seeds, "--corpus", path, *out)
        assert code == 0
        assert f"left out 1 not UTF-8 ({path}:81)" in stderr, command


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    for name, n, seed in (("train", 200, 1), ("dev", 40, 2)):
        made = make_labelled(n, seed)
        rows = (f"{t}\t{label}\n" for t, label in zip(made.texts, made.labels, strict=True))
        (folder / f"{name}.tsv").write_text("".join(rows))
    return folder


def test_finetune_then_stitch(run, seeds, labelled, tmp_path):
    tuned = []
    for seed in seeds:
        tuned.append(tmp_path / f"tuned-{seed[-1]}")
        options = ["--data", labelled / "train.tsv", "--out", tuned[-1], "--lr", 5e-3, "--json"]
        code, stdout, _ = run("finetune", seed, *options)
        assert code == 0
        assert json.loads(stdout)["classes"] == ["bad", "good"]
    out = tmp_path / "stitched"
    data = ["--data", labelled / "dev.tsv", "--train-data", labelled / "train.tsv"]
    chosen = ["--layers", "0,-1", "--methods", "none,linear,inn"]
    code, stdout, _ = run("stitch", *tuned, *data, *chosen, "--out", out, *QUICK)
    assert code == 0
    results = json.loads(stdout)
    assert results == json.loads((out / "results.json").read_text())
    assert [(r["layer"], r["method"]) for r in results["stitching"]["scores"]] == [
        (layer, method)
        for layer in (0, 3)
        for method in ("no map", "least squares", "INN (two-way)")
    ]
    assert "What stitching keeps" in (out / "report.html").read_text()


def test_attention_writes_results_and_report(run, seeds, corpus, tmp_path):
    out = tmp_path / "out"
    options = ["--corpus", corpus, "--max-length", 12, "--out", out, "--json"]
    code, stdout, _ = run("attention", *seeds, *options)
    assert code == 0
    results = json.loads(stdout)
    assert results == json.loads((out / "results.json").read_text())
    assert len(results["heads"]["similarities"]) == 4 * 6 * 6
    assert "Attention of every head" in (out / "report.html").read_text()


def test_attention_trains_networks_between_layers(run, seeds, corpus, tmp_path):
    options = ["--corpus", corpus, "--max-length", 12, "--networks", "1,-1", "--out", tmp_path]
    code, stdout, _ = run("attention", *seeds, *options, *QUICK)
    assert code == 0
    trained = {s["source_layer"] for s in json.loads(stdout)["scores"] if "INN" in s["method"]}
    assert trained == {1, 3}


def test_doctor_lists_every_backend(run):
    code, stdout, _ = run("doctor", "--json")
    assert code == 0
    kernels = json.loads(stdout)["op affine_coupling"]
    assert kernels["reference"] is True
    assert set(kernels) == {"reference", "cpu", "triton", "cuda"}


@pytest.mark.parametrize(
    ("has", "said"), [(True, "with precision 'fast'"), (False, "no AVX512_BF16")]
)
def test_doctor_tells_whether_fast_rounds(run, monkeypatch, has, said):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    assert said in json.loads(run("doctor", "--json")[1])["16-bit products"]


def test_shipped_seeds_beat_the_unigram_baseline_by_far(run):
    code, stdout, _ = run("seeds", "list", "--json")
    assert code == 0
    cards = json.loads(stdout)
    assert len(cards) >= 4
    shown = run("seeds", "list")[1]
    for card in cards.values():
        assert (Path(card["folder"]) / "config.json").is_file()
        assert f"{card['folder']}\n" in shown
        assert card["loss"] < card["unigram_loss"] - 0.9  # perplexity under half the baseline's
        assert card["accuracy"] > 3 * card["unigram_accuracy"]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (["--heads", 3], ["--heads", 2]),
        (["--lr", -1], ["--lr", 1e-3]),
        (["--length", 2000], ["--length", 16]),
    ],
    ids=["heads", "lr", "length"],
)
def test_seeds_can_be_trained_after_a_mistake(run, corpus, tmp_path, wrong, right):
    shape = ["--hidden", 16, "--layers", 1, "--vocabulary", 60, "--steps", 2, "--out", tmp_path]
    train = ["seeds", "train", "--n", 1, "--corpus", corpus, *shape]
    assert run(*train, *wrong)[0] == 2
    assert not list(tmp_path.iterdir())
    assert run(*train, *right)[0] == 0


def test_seeds_train_makes_seeds_that_compare(run, corpus, tmp_path):
    shape = ["--hidden", 16, "--layers", 1, "--heads", 2, "--vocabulary", 60, "--length", 16]
    code, _, _ = run(
        "seeds", "train", "--n", 2, "--corpus", corpus, "--steps", 5, "--out", tmp_path, *shape
    )
    assert code == 0
    models = [tmp_path / "seed-0", tmp_path / "seed-1"]
    code, stdout, _ = run(
        "compare", *models, "--corpus", corpus, "--networks", "", "--out", tmp_path / "c", "--json"
    )
    assert code == 0
    assert json.loads(stdout)["models"][0]["n_layers"] == 1


MISTAKES = {
    "missing model": (["compare", "./gone", "./gone2"], "there is no model folder ./gone"),
    "one model": (["compare", "{seed}"], "1 seeds to compare, expected two or more"),
    "same name": (["compare", "{seed}", "{seed}"], "two models have the same name"),
    "layers": (["compare", "{seed}", "{seed}x", "--layers", "a"], "--layers is 'a', expected"),
    "networks": (["compare", "{seed}", "{seed}x", "--networks", "1:2:3"], "as -1,3:5"),
    "strengths": (["sanity", "{seed}", "--strengths", "much"], "--strengths is 'much', expected"),
    "hub": (["compare", "{seed}", "{other}", "--hub", "gone"], "hub is 'gone', expected 'consens"),
    "layer beyond the last": (
        ["compare", "{seed}", "{other}", "--networks", "9"],
        "a network is wanted at layer 9 of seed-0, whose layers are 0 (embeddings) to 3",
    ),
    "layer before the first": (
        ["compare", "{seed}", "{other}", "--networks", "-5"],
        "a network is wanted at layer -5 of seed-0",
    ),
    "hub at no layer": (
        ["compare", "{seed}", "{other}", "--networks", "0:2", "--hub", "consensus"],
        "a hub is wanted at no layer; name one, not a cell, in network_layers (--networks)",
    ),
    "BERT-INN at no layer": (
        ["compare", "{seed}", "{other}", "--networks", "", "--published"],
        "BERT-INN is wanted at no layer",
    ),
    "fast stores": (["compare", "{store}", "{store}", "--fast"], "leave --fast out"),
    "fast and exact": (["moments", "{seed}", "--fast", "--exact"], "give --fast or --exact"),
    "packages": (
        ["seeds", "train", "--corpus", "x.txt", "--packages"],
        "give --corpus or --packages, not both",
    ),
    "two budgets": (
        ["compare", "{seed}", "{other}", "--max-steps", "9", "--max-seconds", "9"],
        "give --max-steps or --max-seconds, not both",
    ),
    "steps of a map in closed form": (
        ["align", "{seed}", "{other}", "--method", "linear", "--max-steps", "9"],
        "--method linear is solved, not trained; leave --max-steps out",
    ),
    "steps of maps in closed form": (
        ["stitch", "{seed}", "{seed}", "--data", "{dev}", "--methods", "cca", "--max-steps", "9"],
        "--methods cca trains no network; leave --max-steps out",
    ),
    "steps of no network": (
        ["attention", "{seed}", "{other}", "--max-steps", "9"],
        "no network is trained without --networks; leave --max-steps out",
    ),
    "seconds of no network": (
        ["compare", "{seed}", "{other}", "--networks", "", "--max-seconds", "9"],
        "no network is trained without --networks; leave --max-seconds out",
    ),
    "steps of no hub": (
        ["compare", "{seed}", "{other}", "--hub-steps", "9"],
        "add --hub consensus",
    ),
    "missing corpus": (["align", "{seed}", "{seed}", "--corpus", "gone.txt"], "gone.txt is not"),
    "no labelled file": (["finetune", "{seed}", "--data", "gone.tsv"], "gone.tsv is not a file"),
    "no classifier": (
        ["stitch", "{seed}", "{seed}", "--data", "{dev}"],
        "has no trained classifier",
    ),
    "no such method": (
        ["stitch", "{seed}", "{seed}", "--data", "{dev}", "--methods", "magic"],
        "--methods is 'magic', expected one of 'none', 'procrustes'",
    ),
    "two texts": (
        ["stitch", "{seed}", "{seed}", "--data", "{dev}", "--train-data", "a", "--corpus", "b"],
        "give --train-data or --corpus, not both",
    ),
    "heads of a layer that is not there": (
        ["attention", "{seed}", "{seed}x", "--layers", "0"],
        "has layers 1 to 3",
    ),
    "storage that is not there": (
        ["moments", "{seed}", "--storage", "gone"],
        "storage gone is no folder; make it, or give another (--storage)",
    ),
    "text for stores": (["moments", "{store}", "--corpus", "a"], "stores have read their corpus"),
    "head of stores": (
        ["moments", "{store}", "--documents", "9"],
        "leave --corpus and --documents",
    ),
    "model and store": (
        ["compare", "{other}", "{store}"],
        "{store} is a store and {other} is none",
    ),
    "store and model": (["align", "{store}", "{other}"], "{store} is a store and {other} is none"),
    "layer that is not stored": (["moments", "{store}", "--layers", "2"], "holds layers [0, 3]"),
    "level of a store": (
        ["moments", "{store}", "--level", "word"],
        "holds level 'token', 'word' is wanted",
    ),
    "blocks for this memory": (
        ["moments", "{seed}", "--tokens-per-block", "99999999999"],
        "read fewer layers or models at once, or give --tokens-per-block",
    ),
    "no such layer": (["align", "{seed}", "{seed}", "--layer", "9"], "layers 0 (embeddings) to 3"),
}


@pytest.mark.campaign("R10")
@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_end_in_one_line_and_exit_code_2(
    run, seeds, stored, labelled, tmp_path, arguments, message
):
    names = {"seed": seeds[0], "other": seeds[1], "dev": labelled / "dev.tsv", "store": stored[0]}
    filled = [part.format(**names) for part in arguments]
    out = [] if arguments[0] == "sanity" else ["--out", tmp_path / "out"]
    code, _, stderr = run(*filled, *out)
    assert code == 2
    assert message.format(**names) in stderr
    assert stderr.count("\n") == 1


def test_a_full_disk_is_said(run, seeds, tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr("os.replace", full)
    code, _, stderr = run("compare", *seeds, "--out", tmp_path / "out")
    assert code == 2
    assert "No space left on device" in stderr


def test_the_version_is_told(run):
    assert run("--version") == (0, f"fastinn {fastinn.__version__}\n", "")


def test_module_runs_as_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "fastinn", "--help"], capture_output=True, text=True, check=True
    )
    assert "demo" in done.stdout


def test_plot_draws_a_finished_run(run, tmp_path):
    (tmp_path / "results.json").write_text(
        json.dumps({"spectra": [{"a": "x", "b": "y", "layer": 2, "correlations": [0.9, 0.5]}]})
    )
    code, stdout, _ = run("plot", tmp_path, "--format", "svg", "--json")
    assert code == 0
    assert json.loads(stdout) == [str(tmp_path / "plots" / "spectrum-2.svg")]
    assert (tmp_path / "plots" / "spectrum-2.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not there; give the folder of a finished run"),
        ([".", "--format", "pdf"], "--format is 'pdf', expected"),
    ],
    ids=["missing", "format"],
)
def test_plot_refuses_what_it_cannot_draw(run, arguments, message):
    code, _, stderr = run("plot", *arguments)
    assert code == 2
    assert message in stderr


def test_plot_names_results_that_lack_something(run, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"scores": [{}]}))
    code, _, stderr = run("plot", path)
    assert code == 2
    assert f"{path} is not as a command wrote it (KeyError: 'source')" in stderr


def test_plot_without_matplotlib_names_the_remedy(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    (tmp_path / "results.json").write_text(
        json.dumps({"spectra": [{"a": "x", "b": "y", "layer": 2, "correlations": [0.9]}]})
    )
    code, _, stderr = run("plot", tmp_path)
    assert code == 2
    assert stderr == (
        "fastinn: plots as files need matplotlib; install it by: pip install 'fastinn[plots]'\n"
    )


def test_tables_are_wide_where_they_are_not_on_a_terminal(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert _terminal._console().width == 120
    monkeypatch.setenv("COLUMNS", "90")
    assert _terminal._console().width == 90


def test_what_cannot_be_compared_is_refused_before_anything_is_lost(
    run, seeds, corpus, tmp_path, monkeypatch
):
    """Neither counted nor claimed: a typo must not cost the checkpoints of a killed run."""
    monkeypatch.setattr(sys.modules["fastinn.cli._run"], "announce", None)
    (tmp_path / "checkpoints").mkdir()
    options = ["--networks", "9", "--overwrite", "--out", tmp_path]
    code, _, _ = run("compare", *seeds, "--corpus", corpus, *options)
    assert code == 2
    assert (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("left", ["results.json", "aligner.json", "moments.json"])
def test_a_folder_of_any_run_is_not_mixed_with_another(run, seeds, corpus, tmp_path, left):
    (tmp_path / left).write_text("{}")
    code, _, stderr = run("align", *seeds, "--corpus", corpus, "--out", tmp_path)
    assert code == 2
    assert "holds another run" in stderr


@pytest.mark.parametrize("command", ["compare", "extract"])
def test_a_folder_that_cannot_be_made_is_named(run, seeds, corpus, tmp_path, command):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    code, _, stderr = run(command, *seeds, "--corpus", corpus, "--out", out)
    assert code == 2
    assert f"{out} cannot be made or written (Not a directory); give another folder" in stderr


def test_the_first_token_is_read_from_the_first_layer_on(run, seeds, corpus, tmp_path):
    """Its embedding is the same in every text, of which no map can be fitted."""
    options = ["--level", "cls", "--networks", "", "--out", tmp_path, "--json"]
    code, stdout, _ = run("compare", *seeds, "--corpus", corpus, *options)
    assert code == 0
    assert {r["source_layer"] for r in json.loads(stdout)["scores"]} == {1, 2, 3}


def test_too_little_text_says_which_split_is_empty(run, seeds, tmp_path):
    text = tmp_path / "one.txt"
    text.write_text("word worda wordb\n")
    code, _, stderr = run("compare", *seeds, "--corpus", text, "--out", tmp_path / "out")
    assert code == 2
    empty = r"read (train|validation|test): there is no text to read; give more documents"
    assert re.search(empty, stderr)


def test_what_is_trained_is_announced(run, seeds, corpus, tmp_path):
    options = ["--networks", "-1,0:1", "--hub", "consensus", "--published", "--max-steps", "0"]
    run_of = ["compare", *seeds, "--corpus", corpus, "--out", tmp_path, *options]
    code, stdout, _ = run(*run_of)
    assert code == 0
    assert "To train: 12 networks of 3 pairs, up to 0 steps each, and hubs" in stdout
