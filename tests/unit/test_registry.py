"""Names, selection, plug-ins."""

from __future__ import annotations

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
    with pytest.raises(RegistryError, match='Two classes call themselves "uchida-random"'):
        registry.schemes()
    monkeypatch.delenv("BENCH_PLUGINS")
    assert "test-raises" not in registry.schemes()


def test_a_plugin_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    monkeypatch.setenv("BENCH_PLUGINS", str(tmp_path))
    with pytest.raises(RegistryError, match=r"broken\.py could not be imported: ModuleNotFoundError"):
        registry.schemes()


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
        assert scheme.card.key_arch is None or scheme.card.key_arch in scheme.Params.model_fields, name


def test_none_is_typed_as_none_where_a_parameter_may_be() -> None:
    known = registry.schemes()
    assert make(known["deepstamp"], {"images": "none"}).params.images is None
    assert make(known["deepstamp"], {"images": "7"}).params.images == 7
    with pytest.raises(RegistryError, match="but got 'none'"):
        make(known["anw-hue"], {"pool": "none"})
