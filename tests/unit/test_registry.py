"""Names, selection, plug-ins."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import registry
from bench.registry import RegistryError, choose, make, unknown
from tests.conftest import PLUGINS

KNOWN = {"uchida-random": {"weights"}, "uchida-diff": {"weights"}, "zhang-noise": {"behaviour"}}


@pytest.mark.parametrize(
    ("expression", "chosen"),
    [
        ("all", list(KNOWN)),
        ("zhang-noise,uchida-random", ["uchida-random", "zhang-noise"]),
        ("uchida-*", ["uchida-random", "uchida-diff"]),
        ("@behaviour, uchida-diff", ["uchida-diff", "zhang-noise"]),
    ],
)
def test_choose(expression: str, chosen: list[str]) -> None:
    assert choose(expression, KNOWN, "a scheme") == chosen


def test_american_spelling_selects_too() -> None:
    known = {"quantisation": {"quantisation"}, "pruning-resized": set(), "randomised": set()}
    assert choose("quantization,pruning-resized", known, "an attack") == ["quantisation", "pruning-resized"]
    assert choose("@quantization,randomi*", known, "an attack") == ["quantisation", "randomised"]
    assert registry.attack_chain("pruning=50+quantization") == [("pruning", 50.0), ("quantisation", None)]


@pytest.mark.parametrize("expression", ["uchda-random", "@wieghts", "", "zhang-noise,nothing*"])
def test_choose_refuses_what_selects_nothing(expression: str) -> None:
    with pytest.raises(RegistryError, match="Expected a scheme, but got"):
        choose(expression, KNOWN, "a scheme")


def test_a_typo_is_answered_with_the_nearest_name() -> None:
    assert 'Did you mean "uchida-random"?' in unknown("uchda-randm", KNOWN, "a scheme")


def test_plugins_join_and_clashes_are_loud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_PLUGINS", str(PLUGINS))
    assert "test-raises" in registry.schemes()
    clash = tmp_path / "clash.py"
    clash.write_text((PLUGINS / "raises.py").read_text().replace("test-raises", "uchida-random"))
    monkeypatch.setenv("BENCH_PLUGINS", str(clash))
    with pytest.raises(RegistryError, match='Two classes call themselves "uchida-random"') as caught:
        registry.schemes()
    assert str(clash) in str(caught.value)
    assert "schemes/uchida.py" in str(caught.value)
    monkeypatch.delenv("BENCH_PLUGINS")
    assert "test-raises" not in registry.schemes()


def test_a_plugin_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    monkeypatch.setenv("BENCH_PLUGINS", str(tmp_path))
    for _ in range(2):  # a half-imported module is not taken for a whole one
        with pytest.raises(RegistryError, match=r"broken\.py could not be imported \(line 1\): ModuleNotFoundError"):
            registry.schemes()
    (tmp_path / "broken.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(RegistryError, match=r"broken\.py could not be imported"):
        registry.attacks()


def toy(name: str) -> str:
    return (PLUGINS / "raises.py").read_text().replace("test-raises", name)


def test_files_of_one_stem_are_two_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / folder / "method.py" for folder in ("a", "b")]
    for path, name in zip(files, ("test-one", "test-two"), strict=True):
        path.parent.mkdir()
        path.write_text(toy(name))
    monkeypatch.delenv("BENCH_PLUGINS", raising=False)
    monkeypatch.chdir(tmp_path)
    registry.add_plugins([Path("a"), Path("b/method.py"), files[0]])
    known = registry.schemes()
    assert {"test-one", "test-two"} <= set(known), "a file named twice is taken once"
    assert known["test-one"].__module__ != known["test-two"].__module__
    monkeypatch.chdir(tmp_path / "a")
    assert registry.schemes() is known, "relative paths are of the folder where they were given"
    with pytest.raises(RegistryError, match="there is no"):
        registry.add_plugins([tmp_path / "nothing.py"])


@pytest.mark.parametrize("value", ["its_method", "its_method:Raises"])
def test_entry_points_join(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that two of them lead to is one class."""
    installed(tmp_path, value, "again = its_method:Raises\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "its_method", raising=False)
    registry._collect.cache_clear()
    known = registry.schemes()
    assert "test-installed" in known
    assert "test-installed" not in registry.attacks()
    registry._collect.cache_clear()


@pytest.mark.parametrize(
    ("value", "reason"), [("its_method:Key", "expected a module or a Scheme"), ("no_module", "ModuleNotFoundError")]
)
def test_an_entry_point_of_another_kind_is_named(
    value: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, value)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "its_method", raising=False)
    registry._collect.cache_clear()
    with pytest.raises(RegistryError, match=reason) as caught:
        registry.schemes()
    assert f"Entry point watermark_bench.schemes:mine = {value}" in str(caught.value)


def installed(folder: Path, value: str, more: str = "") -> None:
    """A package as pip leaves it: a module, and what its distribution declares."""
    (folder / "its_method.py").write_text(toy("test-installed"))
    (folder / "its_method-1.0.dist-info").mkdir()
    (folder / "its_method-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: its-method\nVersion: 1.0\n")
    told = f"[watermark_bench.schemes]\nmine = {value}\n{more}"
    (folder / "its_method-1.0.dist-info/entry_points.txt").write_text(told)


def test_a_scheme_without_verify_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (PLUGINS / "raises.py").read_text()
    (tmp_path / "half.py").write_text(text[: text.index("    def verify")].replace("test-raises", "test-half"))
    monkeypatch.setenv("BENCH_PLUGINS", str(tmp_path))
    with pytest.raises(RegistryError, match="does not override verify"):
        registry.schemes()


def test_parameters_are_checked() -> None:
    with pytest.raises(RegistryError, match=r"uchida-random\.bits: .* but got '-4'\. Known: .*bits"):
        make(registry.schemes()["uchida-random"], {"bits": "-4"})
    with pytest.raises(RegistryError, match=r"uchida-random\.bitz"):
        make(registry.schemes()["uchida-random"], {"bitz": 4})
    assert make(registry.schemes()["uchida-random"], {"bits": "128"}).params.bits == 128


def test_cards_name_parameters_that_exist() -> None:
    for name, scheme in registry.schemes().items():
        card = scheme.card
        named = (card.key_arch, card.payload_parameter, card.layer_parameter)
        assert set(filter(None, named)) <= set(scheme.Params.model_fields), name


def test_none_is_typed_as_none_where_a_parameter_may_be() -> None:
    known = registry.schemes()
    assert make(known["deepstamp"], {"images": "none"}).params.images is None
    assert make(known["deepstamp"], {"images": "7"}).params.images == 7
    with pytest.raises(RegistryError, match="but got 'none'"):
        make(known["anw-hue"], {"pool": "none"})
