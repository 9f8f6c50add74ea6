"""The page is one self-contained file, and carries signatures, held-out users and histories."""

import base64
import hashlib
import json
import re

import pytest

from bench.stats import wilson_interval
from leaderboard import build, rows
from tests.fakes import (
    HOSTILE,
    SCHEMES,
    benchmark_records,
    identified,
    idle,
    member,
    of_scheme,
    rung,
    search,
    searched,
    simulated,
    verdict,
)
from tests.site.paged import only, page_of


# ---- signatures, held-out users, histories -------------------------------------------------------------------------
def test_protection_counts_matches_over_seeds_against_one_chance():
    found = only([searched(3, 0, 1), searched(3, 1, 0), searched(3, 1, 0, attack="other")])["protection"]
    assert (found["hits"], found["trials"], found["chance"]) == (5, 6, pytest.approx(1 / 12))
    assert found["advantage"] == pytest.approx(5 / 6 - 1 / 12)
    assert found["normalised"] == pytest.approx((5 / 6 - 1 / 12) / (11 / 12))
    assert (found["low"], found["high"]) == (None, None), "owners of one seed share a network"
    found = only([searched(1, seed) for seed in range(6)])["protection"]
    low, high = wilson_interval(6, 6)
    assert (found["low"], found["high"]) == pytest.approx((low - 1 / 12, high - 1 / 12))


def test_protection_of_a_scheme_that_identifies_nothing_is_detection_less_the_fpr():
    assert rows([of_scheme()], 0.05)[0]["protection"]["advantage"] == pytest.approx(0.95)
    assert only([idle("failed")]).get("protection") is None


def test_a_chance_of_one_has_no_normalised_value_and_still_makes_a_page(tmp_path):
    sure = of_scheme(marked=rung(0, 0.9, identified(chance=1.0)))
    assert only([sure])["protection"]["normalised"] is None
    assert build([sure], tmp_path).exists()


def test_held_out_users_are_summed_up_once_a_seed_and_around_the_circle():
    made = [searched(attack=attack, heldout=(0.0, 0.0, 330.0)) for attack in ("a", "b")]
    made += [searched(seed=1, heldout=(0.0, 90.0))]
    found = only(made)["heldout"]
    assert (found["users"], found["inferred"]["mean"], found["unit"]) == (5, 24.0, "degrees")  # 0, 0, 30, 0 and 90
    half = 2.776445 * 39.115214 / 5**0.5  # Student's t with 4 degrees of freedom
    assert (found["inferred"]["low"], found["inferred"]["high"]) == pytest.approx((0, 24 + half), rel=1e-5)
    assert (found["unmarked"]["hits"], found["unmarked"]["trials"]) == (3, 5)
    assert only([searched(heldout=(330.0, 350.0, 90.0))])["heldout"]["inferred"]["mean"] == pytest.approx(130 / 3)
    assert found["detected"]["hits"] == 0


def test_held_out_users_without_a_signature_have_no_mean():
    found = only([of_scheme(heldout_verdicts=[member(True), member(False)])])["heldout"]
    assert (found["inferred"], found["unmarked"], found["detected"]["hits"]) == (None, None, 1)
    assert only([of_scheme()])["heldout"] is None


def test_searches_show_a_dozen_owners_and_six_held_out_users():
    found = only([searched(9, 0, 1, heldout=(0.0,) * 4), searched(9, 1, heldout=(0.0,) * 4)])["searches"]
    assert [(each["seed"], each["owner"]) for each in found["owners"]] == [
        *[(0, i) for i in range(9)],
        *[(1, i) for i in range(3)],
    ]
    assert (found["more"], len(found["heldout"]), found["heldout_more"]) == (6, 6, 2)
    missed, hit = found["owners"][:2]
    assert (missed["true"], missed["candidates"][missed["best"]], missed["matched"]) == (30.0, 0.0, False)
    assert (hit["true"], hit["candidates"][hit["best"]], hit["matched"]) == (60.0, 60.0, True)
    assert only([of_scheme()])["searches"] is None


def test_a_fine_search_is_thinned_but_keeps_its_least_loss():
    losses = [2.0 if k != 501 else 0.123456 for k in range(1000)]
    fine = {"candidates": list(range(1000)), "losses": losses, "true": 501.5, "unit": "steps"}
    (found,) = only([of_scheme(marked=rung(0, 0.9, verdict(1e-9, search=fine)))])["searches"]["owners"]
    assert len(found["losses"]) == len(found["candidates"]) == 121
    assert (found["candidates"][found["best"]], found["losses"][found["best"]]) == (501, 0.1235)


def test_only_attacks_on_training_show_their_rungs_and_only_a_few():
    made = [searched(5, rungs=range(1, 21)), searched(5, attack="x", stage="model", rungs=(1,))]
    attacks = only(made)["attacks"]
    found = attacks["pruning"]["searches"]
    assert sorted({each["owner"] for each in found}) == [0, 1, 2]
    strengths = [each["strength"] for each in found if each["owner"] == 0]
    assert (len(strengths), strengths[0], strengths[-1]) == (8, 0, 20)
    assert attacks["x"]["searches"] == []


def test_histories_are_lines_per_seed_and_long_ones_are_thinned():
    made = [
        of_scheme(attack=a, seed=s, histories={"loss of W": [3.0, 2.0, 1.0], "empty": []}) for a in "ab" for s in (1, 0)
    ]
    made += [of_scheme(attack="a", seed=2, histories={"loss of W": [i / 1000 for i in range(10_000)]})]
    found = only(made)["histories"]
    (series,) = found["series"]
    assert (series["name"], found["more"]) == ("loss of W", 0)
    assert [line["seed"] for line in series["lines"]] == [0, 1, 2]
    assert series["lines"][0] == {"seed": 0, "epochs": 3, "values": [3.0, 2.0, 1.0]}
    long = series["lines"][2]
    assert (long["epochs"], len(long["values"]), long["values"][0], long["values"][-1]) == (10_000, 120, 0.0, 9.999)
    two = only([of_scheme(attack=a, histories={a: [1.0]}) for a in "ba"])["histories"]["series"]
    assert [each["name"] for each in two] == ["a"]
    many = only([of_scheme(histories={f"loss {i}": [1.0] for i in range(15)})])["histories"]
    assert (len(many["series"]), many["more"]) == (12, 3)
    assert only([of_scheme(histories={"empty": []})])["histories"] is None


def test_the_page_carries_each_space_of_signatures_once(tmp_path):
    made = [searched(12, seed, rungs=range(1, 21), heldout=(0.0,) * 20) for seed in range(3)]
    page, _ = page_of([*made, searched(scheme="other")], tmp_path)
    payload = page.payload
    assert payload["spaces"] == [search().candidates]
    row = next(row for row in payload["rows"] if row["scheme"] == "anti-neuron")
    shown = [*row["searches"]["owners"], *row["searches"]["heldout"], *row["attacks"]["pruning"]["searches"]]
    assert len(shown) == 12 + 6 + 3 * 8
    assert {each["candidates"] for each in shown} == {0}
    plain, _ = page_of([of_scheme()], tmp_path / "plain")
    assert len(json.dumps(payload)) - len(json.dumps(plain.payload)) < 20_000


# ---- the file ----


def test_the_page_is_one_file_that_loads_nothing(tmp_path):
    page, path = page_of(benchmark_records(), tmp_path)
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]
    assert page.addresses == ["data:,", "#board-title"]
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", path.read_text(encoding="utf-8"))


def test_the_policy_allows_this_script_and_no_other(tmp_path):
    page, _ = page_of(benchmark_records(), tmp_path)
    (data, _), (outcomes, _), (code, script), (details, _) = page.scripts
    assert data == {"type": "application/json", "id": "data"}
    assert outcomes == {"type": "text/plain", "id": "outcomes"}
    assert details == {"type": "text/plain", "id": "details"}
    assert code == {}
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert page.policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}';" in page.policy
    assert "innerHTML" not in script
    assert "insertAdjacentHTML" not in script


def test_hostile_strings_stay_inside_the_data_block(tmp_path):
    told = identified(search=search(unit=HOSTILE[:40]))
    hostile = of_scheme(
        scheme_params={"note": HOSTILE},
        unit=HOSTILE[:80],
        provenance={"platform": HOSTILE},
        histories={HOSTILE: [1.0]},
        marked=rung(0, 0.9, told),
        heldout_verdicts=[told],
    )
    note = {"note": HOSTILE}
    made = [hostile, idle("failed", attack="b", why=HOSTILE, scheme_params=note)]
    made += [idle("not applicable", attack="c", why=HOSTILE, scheme_params=note)]
    page, path = page_of(made, tmp_path, generated=HOSTILE)
    assert len(page.scripts) == 4
    assert "img" not in page.tags
    assert "<script>alert" not in path.read_text(encoding="utf-8")
    payload = page.payload
    assert {row["params"]["note"] for row in payload["rows"]} == {HOSTILE}
    assert {p["reason"] for row in payload["rows"] for p in row["problems"]} == {HOSTILE}


def test_the_page_carries_the_cards_of_what_it_shows(tmp_path):
    card = {"title": "T", "paper": "P", "link": "https://example.org/p", "code": None, "extensions": []}
    cards = {"schemes": {"uchida-random": card, "absent": card}, "attacks": {"pruning": card, "ftal": card, "x": card}}
    page, _ = page_of([of_scheme(attack="pruning=50+ftal")], tmp_path, cards=cards)
    assert page.payload["cards"] == {
        "schemes": {"uchida-random": card},
        "attacks": {"ftal": card, "pruning": card},
    }


def test_equal_records_give_equal_bytes_and_the_date_is_said_when_given(tmp_path):
    first = build(benchmark_records(), tmp_path / "a").read_bytes()
    assert build(benchmark_records(), tmp_path / "b").read_bytes() == first
    assert b"Page made 2026-11-21" in build([], tmp_path / "c", generated="2026-11-21").read_bytes()


def test_four_hundred_records_stay_below_300_kb(tmp_path):
    places = [
        ("wrn-10-4", "digits-m"),
        ("vgg", "digits-m"),
        ("wrn-10-4", "cifar10"),
        ("vgg", "cifar10"),
        ("lenet", "mnist"),
    ]
    made = [
        simulated(s, a, seed, arch=arch, dataset=dataset)
        for arch, dataset in places
        for s in SCHEMES
        for a in ("pruning", "pruning-global")
        for seed in range(6)
    ]
    assert len(made) == 420
    assert build(made, tmp_path).stat().st_size < 300_000
