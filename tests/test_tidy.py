"""Rules of the house that no linter checks. There is no list of exceptions."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path for path in (ROOT / "worker").rglob("*.py"))
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
BANNED_NAMES = {"chg", "md", "tp", "msg", "ctx", "utils"}
TIME_CALLS = {"time", "sleep", "monotonic", "perf_counter", "process_time"}
STANDARD = set(sys.stdlib_module_names)
ALLOWED = {
    "worker/core/codec": {"numpy", "orjson", "worker.core", "worker.errors"},
    "worker/core": {"numpy", "worker.core", "worker.errors"},
    "worker/model/kernel": {"numpy", "llvmlite", "numba", "worker.core", "worker.model"},
    "worker/model": {"numpy", "h5py", "worker.core", "worker.errors", "worker.ports", "worker.model"},
}
"""What a package may import at its top level, besides the standard library; the first prefix that fits holds."""
IMPURE = {
    "asyncio",
    "datetime",
    "io",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "socket",
    "threading",
    "time",
    "uuid",
}
"""Parts of the standard library that the core does without: clock, input and output, logs, threads, randomness."""
LATE_IMPORTS = {"worker/model": {"keras", "tensorflow", "tf_keras"}}
"""What it may import inside functions only."""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imports(nodes: list[ast.AST]) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            found.add(str(node.module))
    return found - {"__future__"}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_files_and_functions_stay_small(path):
    assert len(path.read_text("utf-8").splitlines()) <= FILE_LINES_MAX
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_packages_import_only_what_their_place_allows(path):
    package = next((prefix for prefix in ALLOWED if name(path).startswith(prefix + "/")), None)
    if package is None:
        return
    module = tree(path)
    late = LATE_IMPORTS.get(package, set())
    everywhere = imports(list(ast.walk(module)))
    at_the_top = imports(list(module.body))
    for imported in everywhere:
        root = imported.split(".")[0]
        allowed = root in STANDARD or any(
            imported == each or imported.startswith(each + ".") for each in ALLOWED[package]
        )
        assert allowed or (root in late and imported not in at_the_top), f"{imported} is not for {package}"


@pytest.mark.parametrize("path", [path for path in MODULES if "/core/" in name(path)], ids=name)
def test_the_core_is_pure(path):
    assert not {each.split(".")[0] for each in imports(list(ast.walk(tree(path))))} & IMPURE


@pytest.mark.parametrize("path", [path for path in MODULES if "/adapters/" in name(path)], ids=name)
def test_adapters_know_only_the_core_errors_and_ports(path):
    known = ("worker.core", "worker.errors", "worker.ports", "worker.adapters")
    of_the_project = {each for each in imports(list(ast.walk(tree(path)))) if each.startswith("worker")}
    assert not {each for each in of_the_project if not each.startswith(known)}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_time_is_read_in_one_place_and_errors_are_named(path):
    for node in ast.walk(tree(path)):
        if name(path) != "worker/adapters/clock.py":
            of_time = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time"
            assert not of_time or node.attr not in TIME_CALLS, f"line {node.lineno}: time.{node.attr}"
            assert not isinstance(node, ast.ImportFrom) or node.module != "time", f"line {node.lineno}"
        if isinstance(node, ast.ExceptHandler):
            caught = {inner.id for inner in ast.walk(node.type) if isinstance(inner, ast.Name)} if node.type else set()
            broad = node.type is None or bool(caught & {"Exception", "BaseException"})
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            assert not broad or raises, f"line {node.lineno}: a broad except that does not raise"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_names_are_words(path):
    assert path.stem not in BANNED_NAMES
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            assert node.id not in BANNED_NAMES
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            assert node.attr not in BANNED_NAMES
        elif isinstance(node, ast.alias):
            assert node.asname not in BANNED_NAMES
        elif isinstance(node, ast.arg):
            assert node.arg not in BANNED_NAMES
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            assert node.name not in BANNED_NAMES


def test_no_module_is_dead():
    everything = set()
    for path in [*MODULES, *(ROOT / "tools").rglob("*.py")]:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and node.module:
                everything.add(node.module)
                everything |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                everything |= {alias.name for alias in node.names}
    text = "\n".join(path.read_text("utf-8") for path in MODULES)
    for path in MODULES:
        module = name(path).removesuffix(".py").replace("/", ".")
        by_name = module.startswith("worker.cli.") or f'"{module}"' in text
        if path.name not in ("__init__.py", "__main__.py") and not by_name:
            assert module in everything, f"nothing imports {module}"


def test_tracked_files_hold_no_paths_of_a_machine_and_no_registry_hosts():
    parts = ["/" + "work/", "/" + "root/", "/" + "farm/", "pypi" + ".org", "repo1." + "maven", "registry." + "npmjs"]
    for path in tracked():
        if path.suffix in {".keras", ".safetensors", ".h5", ".npz", ".svg", ".png"} or path.name == "LICENSE":
            continue
        text = path.read_text("utf-8")
        found = [part for part in parts if part in text]
        assert not found, f"{path.relative_to(ROOT)}: {found}"
