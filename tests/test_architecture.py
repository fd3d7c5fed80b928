"""The walls of the house: who may import whom, and what ``import fastinn`` may cost."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fastinn
from fastinn import metrics

ROOT = Path(fastinn.__file__).parent

BASE = {"_types", "_arrays", "_checks", "_saved", "_checkpoint", "_products", "_memory"}
KERNELS = BASE | {"ops"}
RANKS = KERNELS | {"moments", "distributed"}
MODELS = RANKS | {"nn", "_progress"}
ALLOWED = {
    "_types": set(),
    "_arrays": {"_types"},
    "_checks": {"_types", "_arrays"},
    "_saved": BASE,
    "_checkpoint": {"_saved"},
    "_products": {"_types"},
    "_memory": set(),
    "_allocator": set(),
    "ops": BASE,
    "moments": KERNELS,
    "_heartbeats": set(),
    "distributed": KERNELS | {"moments", "_heartbeats"},
    "_progress": {"distributed"},
    "nn": KERNELS,
    "align": MODELS | {"_allocator"},
    "metrics": MODELS | {"align"},
    "embed": BASE | {"distributed", "_progress"},
    "study": MODELS | {"align", "metrics", "embed", "_allocator"},
    "report": BASE | {"distributed", "align", "metrics", "study"},
    "_doctor": KERNELS,
    "cli": MODELS | {"align", "metrics", "embed", "study", "report", "_doctor", "_allocator"},
    "__main__": {"cli"},
}
"""For each room of the package, the rooms it may import from."""

ONLY_IN = {
    "transformers": ("embed/",),
    "datasets": ("embed/",),
    "triton": ("ops/",),
    "typer": ("cli/",),
    "plotly": ("report/",),
    "matplotlib": ("report/",),
    "cupy": (),
    "xxhash": ("embed/",),
    "fsspec": ("embed/",),
    "pyarrow": ("embed/",),
    "zarr": ("embed/",),
}
"""For each heavy library, the only places that may import it."""

FILES = sorted(ROOT.rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    """Names of all modules that ``path`` imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    here = room(path.relative_to(ROOT).parts)
    if here == "__init__":
        return  # the package itself names every room, lazily
    rooms = {name.split(".")[1] for name in imported_modules(path) if name.startswith("fastinn.")}
    used = {name for name in rooms if name in ALLOWED}
    assert used <= ALLOWED[here] | {here}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_libraries_stay_in_their_room(path):
    where = str(path.relative_to(ROOT))
    for name in {module.split(".")[0] for module in imported_modules(path)} & set(ONLY_IN):
        assert where.startswith(ONLY_IN[name]), f"{name} imported in {where}"


def test_every_room_is_in_the_table():
    rooms = {room(path.relative_to(ROOT).parts) for path in FILES} - {"__init__"}
    assert rooms <= set(ALLOWED)


def test_import_is_light():
    """Under 1.5 s of its own processor time, and none of the heavy libraries."""
    code = (
        "import time, sys, torch; start = time.process_time(); import fastinn; "
        "spent = time.process_time() - start; "
        "heavy = {'transformers', 'triton', 'matplotlib', 'plotly', 'sklearn', 'pyarrow'}; "
        "before = heavy & set(sys.modules); "
        "print(spent, *before)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    spent, *heavy = out.stdout.split()
    assert not heavy
    assert float(spent) < 1.5


def test_commands_import_no_model_before_one_is_named():
    """Models and torch's compiler, which comes with them, cost as long as all the rest."""
    code = (
        "import sys, fastinn.cli; "
        "print(*{'torch._dynamo', 'transformers.modeling_utils'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize("name", fastinn.__all__)
def test_public_names_resolve(name):
    assert getattr(fastinn, name) is not None


def test_public_rooms_are_names_of_the_package():
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"cli"}
    assert rooms <= set(fastinn.__all__)


def test_metrics_lists_its_functions():
    own = {n for n, f in vars(metrics).items() if getattr(f, "__module__", "") == metrics.__name__}
    assert set(metrics.__all__) == {name for name in own if not name.startswith("_")}


FORBIDDEN = ("pickle", "trust_remote_code=True", "weights_only=False", "allow_pickle=True")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_runs_code_from_files(path):
    text = path.read_text()
    assert not [word for word in FORBIDDEN if word in text and f"never {word}" not in text]
