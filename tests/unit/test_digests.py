"""Hashes of source: the same under every Python, and which edit changes which kind of key."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.plan import fingerprint
from bench.plan.fingerprint import Tree, digest_of
from tests.fakes import planned

ROOT = Path(__file__).parents[2]
FOLDERS = ("bench", "schemes", "attacks")
SNIPPET = '''"""Words."""
import functools as f  # more words

@f.cache
def first(a, /, *, b: int = 0x_ff) -> "str":
    """Words."""
    ü = f"é{a!r:>{b}} {{x}} {first(1)['k']}"; t = rf"\\d{b}" "s" f'{a=}'
    "no docstring, but no code either"
    if (n := b) > 1.5e-3j: return f"""{n}
    {a:%Y-%m}"""

    match a:
        case {"k": [1, *_]} | None: return b'x'
'''
# Runs the file itself, so that an interpreter without the project's packages can.
HASH_ALL = """
import importlib.util, json, pathlib, sys
spec = importlib.util.spec_from_file_location("fingerprint", sys.argv[1] + "/bench/plan/fingerprint.py")
found = sys.modules["fingerprint"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(found)
files = [p for name in sys.argv[2:] for p in pathlib.Path(sys.argv[1], name).rglob("*.py")]
print(json.dumps({str(p): found.digest_of(p.read_text(encoding="utf-8")) for p in files}))
"""


def interpreters() -> list[str]:
    """This Python, and every other from 3.11 on that the machine has."""
    found = {sys.executable: sys.version_info[:2]}
    for minor in (11, 12, 13, 14):
        kept = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
        path = shutil.which(f"python3.{minor}") or (str(kept[-1]) if kept else None)
        works = path and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0
        if path and works and (3, minor) not in found.values():
            found[path] = (3, minor)
    return list(found)


def test_a_known_snippet_has_a_known_hash() -> None:
    """If this changes, every stored result is computed again."""
    assert digest_of(SNIPPET) == "681bacf99e6f1982a75ffc51356388ade506665dd56feaff3fcc7101ff760e49"


def test_every_python_finds_the_same_hash_of_every_module(tmp_path: Path) -> None:
    (tmp_path / "snippet.py").write_text(SNIPPET, encoding="utf-8")
    answers = []
    for python in interpreters():
        command = [python, "-c", HASH_ALL, str(ROOT), *FOLDERS, str(tmp_path)]
        answers.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert len(answers[0]) > 100
    assert answers[0][str(tmp_path / "snippet.py")] == digest_of(SNIPPET)
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize(
    "words",
    ["x = 1  # why\n", "# why\n\nx = 1\n", '"""Words."""\nx = 1\n', "x = 1", "x  =  1\n\n\n", "x = 1\n'''Words.'''\n"],
)
def test_words_and_space_change_no_hash(words: str) -> None:
    assert digest_of(words) == digest_of("x = 1\n")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1\n", "x = 2\n"),
        ("x = 'a'\n", "x = 'b'\n"),
        ("x = f'{a}'\n", "x = f'{b}'\n"),
        ("f'{a()}'\n", "f'{b()}'\n"),
        ("if a:\n    b\nc\n", "if a:\n    b\n    c\n"),
        ("def f():\n    '''Words.'''\n    return 1\n", "def f():\n    '''Words.'''\n    return 2\n"),
        ("x = {}\ny\n", "x = {y}\n"),
    ],
)
def test_code_changes_the_hash(one: str, other: str) -> None:
    assert digest_of(one) != digest_of(other)


def test_imports_are_followed_and_re_exports_seen_through(tmp_path: Path) -> None:
    files = {
        "bench/__init__.py": "__version__ = '1'\n",
        "bench/api.py": "'''Words.'''\nfrom bench.a import A\nfrom bench.b import B as Other\n__all__ = ['A']\n",
        "bench/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from bench.types import T\nA = 1\n",
        "bench/b.py": "from bench import registry\nfrom bench.registry import find\nB = 1\n",
        "bench/registry.py": "from bench import a\n",
        "bench/types.py": "T = 1\n",
        "bench/pack/__init__.py": "from bench.pack.one import one\nfrom .two import two\n",
        "bench/pack/one.py": "one = 1\n",
        "bench/pack/two.py": "def two():\n    from ..b import B\n    return B\n",
        "schemes/named.py": "from bench.api import A\n",
        "schemes/renamed.py": "from bench.api import Other\n",
        "schemes/whole.py": "from bench import pack\n",
        "schemes/part.py": "from bench.pack import one\n",
        "schemes/module.py": "import bench.pack.two\nimport torch\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    tree = Tree(tmp_path)
    found = {name: set(tree.closure((f"schemes.{name}",))) - {f"schemes.{name}"} for name in
             ("named", "renamed", "whole", "part", "module")}  # fmt: skip
    assert found == {
        "named": {"bench.a"},
        "renamed": {"bench.b"},
        "whole": {"bench.pack.one", "bench.pack.two", "bench.b"},
        "part": {"bench.pack.one"},
        "module": {"bench.pack.two", "bench.b"},
    }
    with pytest.raises(ModuleNotFoundError, match=r"'schemes\.absent'"):
        tree.closure(("schemes.absent",))


@pytest.mark.parametrize(
    "around",
    [
        "if a:\n    pass\nelse:\n    {}\n",
        "try:\n    {}\nfinally:\n    pass\n",
        "try:\n    pass\nexcept OSError:\n    {}\n",
        "match a:\n    case 1:\n        {}\n",
        "with a:\n    for b in c:\n        {}\n",
        "class A:\n    async def f(self):\n        {}\n",
    ],
)
def test_imports_are_found_wherever_statements_stand(around: str, tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench/a.py").write_text("A = 1\n")
    (tmp_path / "bench/b.py").write_text(around.format("from bench.a import A"))
    assert set(Tree(tmp_path).closure(("bench.b",))) == {"bench.a", "bench.b"}


def all_keys() -> dict[tuple[str, str, str], str]:
    """(scheme, attack, kind of step) -> key, for cells of several shapes."""
    pairs = [("uchida-random", "pruning"), ("zhang-content", "pruning-random"), ("anw-hue", "cutout")]
    cells = [planned(schemes=(scheme,), attacks=(attack,)) for scheme, attack in pairs]
    assert all(cell.reason is None for cell in cells)
    return {(c.cell.scheme, c.cell.attack, kind): step.key for c in cells for kind, step in c.steps.items()}


Changed = Callable[[str, str], "set[tuple[str, str, str]]"]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A copy of the source, read once."""
    root = tmp_path_factory.mktemp("copied")
    for folder in (*FOLDERS, "leaderboard"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "vendor"))
    return Tree(root)


@pytest.fixture
def changed_by(copied: Tree, monkeypatch: pytest.MonkeyPatch) -> Iterator[Changed]:
    """Which keys change when a text is appended to a file (or a file is added) in the copy."""
    monkeypatch.setattr(fingerprint, "tree", lambda: copied)
    before, kept = all_keys(), {}

    def edit(file: str, text: str) -> set[tuple[str, str, str]]:
        path = copied.root / file
        kept[path] = path.read_text(encoding="utf-8") if path.exists() else None
        path.write_text((kept[path] or "") + text, encoding="utf-8")
        module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        tree = Tree(copied.root, {name: known for name, known in copied.modules.items() if name != module})
        monkeypatch.setattr(fingerprint, "tree", lambda: tree)
        after = all_keys()
        return {name for name, key in before.items() if after[name] != key}

    yield edit
    for path, text in kept.items():
        path.unlink() if text is None else path.write_text(text, encoding="utf-8")


NEW = {
    "schemes/added.py": "from bench.api import Scheme\nclass Added(Scheme): ...\n",
    "attacks/added.py": "from bench.api import Attack\nclass Added(Attack): ...\n",
    "bench/archs/added.py": "from bench.api import Arch\nclass Added(Arch):\n    name = 'added'\n",
}


@pytest.mark.parametrize(("file", "text"), NEW.items())
def test_a_new_scheme_attack_or_architecture_changes_no_key(changed_by: Changed, file: str, text: str) -> None:
    assert changed_by(file, text) == set()


def inside(folder: str) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / "bench" / folder).glob("*.py"))]


@pytest.mark.parametrize(
    "file",
    [
        *inside("records"), *inside("metrics"), *inside("tracking")[:1], *inside("cli")[:1], *inside("stamping")[:1],
        "bench/registry.py", "bench/archs/lookup.py", "bench/archs/vgg.py",
        "bench/plan/matrix.py", "bench/plan/profiles.py", "bench/runner/store.py", "bench/checks/suite.py",
        "leaderboard/table.py", "schemes/membership.py", "schemes/deepstamp.py", "attacks/privacy.py",
    ],
)  # fmt: skip
def test_an_edit_elsewhere_changes_no_key(changed_by: Changed, file: str) -> None:
    assert (ROOT / file).exists()
    assert changed_by(file, "\nEDITED = 1\n") == set()


def test_what_authors_import_may_grow_without_changing_a_key(changed_by: Changed) -> None:
    assert changed_by("bench/api.py", "\nfrom bench.stats import wilson_interval\n") == set()


@pytest.mark.parametrize("file", ["bench/steps/training.py", "bench/data/loading.py", "bench/archs/wrn.py"])
def test_an_edit_of_training_data_or_the_network_changes_all_keys(changed_by: Changed, file: str) -> None:
    assert changed_by(file, "\nEDITED = 1\n") == set(all_keys())


@pytest.mark.parametrize("file", ["bench/steps/training.py", "bench/api.py", "schemes/uchida.py"])
def test_a_comment_changes_no_key(changed_by: Changed, file: str) -> None:
    assert changed_by(file, "\n\n# a word\n") == set()


def test_a_scheme_changes_its_own_keys_but_no_hosts(changed_by: Changed) -> None:
    found = changed_by("schemes/uchida.py", "\nEDITED = 1\n")
    assert found == {name for name in all_keys() if name[0] == "uchida-random" and name[2] not in ("host", "control")}


def test_an_attack_changes_what_it_attacks_alone(changed_by: Changed) -> None:
    found = changed_by("attacks/pruning.py", "\nEDITED = 1\n")
    assert found == {name for name in all_keys() if "pruning" in name[1] and name[2] in ("attack", "attacked_nulls")}


def test_judging_changes_no_host(changed_by: Changed) -> None:
    kinds = {kind for _, _, kind in changed_by("bench/steps/judge.py", "\nEDITED = 1\n")}
    assert kinds >= {"mark", "attack", "nulls", "attacked_nulls"}
    assert "host" not in kinds


def test_judging_of_pictures_changes_no_host(changed_by: Changed) -> None:
    assert "host" not in {kind for _, _, kind in changed_by("bench/data/image_quality.py", "\nEDITED = 1\n")}
