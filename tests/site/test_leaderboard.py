"""Rows say what their records say."""

import random

import pytest

import leaderboard
from bench.cli.report import write_page
from bench.records.files import save_record
from bench.records.record import AFTER_ATTACK
from bench.runner.rundir import RunDir
from bench.stats import student_interval
from leaderboard import rows
from leaderboard.table import REPORTED
from tests.fakes import (
    benchmark_records,
    contest,
    idle,
    nulls,
    of_scheme,
    rung,
    said,
)
from tests.site.paged import Page, only


# ---- aggregation ---------------------------------------------------------------------------------------------------
def test_fidelity_is_the_mean_over_seeds_with_its_t_interval_and_counts_a_seed_once():
    accuracies = {0: 0.90, 1: 0.88, 2: 0.91}
    found = only(
        of_scheme(attack=attack, seed=seed, marked=rung(0, accuracy, said(1e-9)))
        for seed, accuracy in accuracies.items()
        for attack in ("pruning", "pruning-global")
    )
    assert found["seeds"] == [0, 1, 2]
    assert found["fidelity"]["values"] == pytest.approx([-1.0, -3.0, 0.0])
    assert found["fidelity"]["mean"] == pytest.approx(-4 / 3)
    low, high = student_interval([-1.0, -3.0, 0.0])
    assert (found["fidelity"]["low"], found["fidelity"]["high"]) == pytest.approx((low, high))


def test_one_seed_has_no_interval():
    fidelity = only([of_scheme()])["fidelity"]
    assert fidelity["mean"] == pytest.approx(-1.0)
    assert fidelity["low"] is None
    assert fidelity["high"] is None


def test_what_is_unknown_is_none_and_never_zero():
    found = only([of_scheme(clean_accuracy=None)])
    for name in ("fidelity", "robustness", "removal", "security", "embed_ratio"):
        assert found[name] is None, name


def test_the_worst_rung_within_five_points_decides_and_ties_at_the_budget_count():
    holds, breaks = said(0.01), said(0.0101)
    within = [rung(10, 0.85, breaks), rung(20, 0.70, holds)]
    beyond = [rung(10, 0.85, holds), rung(20, 0.849, breaks)]
    found = only([of_scheme(seed=0, curve=within), of_scheme(seed=1, curve=beyond)])["robustness"]
    assert (found["hits"], found["trials"], found["undecided"]) == (1, 2, 0)


def test_a_seed_survives_only_if_it_survives_every_attack_and_the_mean_is_over_attacks():
    holds, breaks = [rung(10, 0.9, said(1e-9))], [rung(10, 0.9, said(0.5))]
    made = [of_scheme(attack="a", seed=s, curve=holds) for s in (0, 1)]
    made += [of_scheme(attack="b", seed=0, curve=holds), of_scheme(attack="b", seed=1, curve=breaks)]
    found = only(made)
    assert (found["robustness"]["hits"], found["robustness"]["trials"]) == (1, 2)
    assert found["robustness"]["mean"] == pytest.approx(0.75)
    assert found["attacks"]["a"]["survival"]["hits"] == 2
    assert found["attacks"]["b"]["survival"]["hits"] == 1


def test_a_claim_that_never_held_does_not_survive():
    weak = rung(0, 0.9, said(0.6))
    found = only([of_scheme(marked=weak, curve=[rung(10, 0.5, said(0.6))])])
    assert (found["robustness"]["hits"], found["robustness"]["trials"]) == (0, 1)
    assert found["removal"] == {"pp": 0.0, "more": False, "values": [[0.0, False]]}


def test_a_seed_whose_attack_failed_is_undecided_unless_another_attack_broke_it():
    holds, breaks = [rung(10, 0.9, said(1e-9))], [rung(10, 0.9, said(0.5))]
    made = [of_scheme(attack="a", seed=0, curve=holds), of_scheme(attack="a", seed=1, curve=breaks)]
    made += [of_scheme(attack="a", seed=2, curve=holds), of_scheme(attack="b", seed=2, curve=holds)]
    made += [idle("failed", attack="b", seed=s) for s in (0, 1)]
    found = only(made)["robustness"]
    assert (found["hits"], found["trials"], found["undecided"]) == (1, 2, 1)


@pytest.mark.parametrize("p_value", [1e-9, 0.5])
def test_a_seed_that_missed_an_attack_has_no_removal_cost(p_value):
    curve = [rung(10, 0.7, said(p_value))]
    made = [of_scheme(attack="a", seed=s, curve=curve) for s in (0, 1)] + [of_scheme(attack="b", seed=0, curve=curve)]
    (value,) = only([*made, idle("failed", attack="b", seed=1)])["removal"]["values"]
    assert value == pytest.approx([20.0, p_value < 0.01])


def test_a_break_of_unknown_cost_leaves_the_claim_undecided():
    found = only([of_scheme(curve=[rung(10, None, said(0.5)), rung(20, 0.9, said(1e-9))])])
    assert found["robustness"] is None
    assert found["attacks"]["pruning"]["survival"] is None


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([("cost", 3), ("cost", 10), ("cost", 20)], (10, False)),
        ([("cost", 3), ("cost", 10), ("held", 12)], (10, False)),
        ([("held", 2), ("cost", 10), ("cost", 20)], (10, True)),
        ([("held", 2), ("held", 7), ("held", 30)], (7, True)),
        ([("cost", 3), ("held", 7), ("held", 30)], (7, True)),
        ([("cost", 4), ("held", 4)], (4, False)),
    ],
)
def test_removal_cost_is_the_median_and_says_when_it_is_only_a_bound(outcomes, expected):
    made = []
    for seed, (kind, loss) in enumerate(outcomes):
        last = said(0.5) if kind == "cost" else said(1e-9)
        made.append(of_scheme(seed=seed, curve=[rung(10, 0.9, said(1e-9)), rung(20, 0.9 - loss / 100, last)]))
    found = only(made)["removal"]
    assert (round(found["pp"], 9), found["more"]) == expected


def test_owners_are_trials_of_their_own():
    marked = rung(0, 0.9, said(1e-9, 0.0), said(0.5, 0.5))
    curve = [rung(10, 0.9, said(1e-9), said(0.5))]
    found = only([of_scheme(owners=2, marked=marked, curve=curve)])
    assert (found["effectiveness"]["hits"], found["effectiveness"]["trials"]) == (1, 2)
    assert (found["robustness"]["hits"], found["robustness"]["trials"]) == (1, 2)
    assert found["evidence"]["ber"] == pytest.approx(0.25)


def test_detection_follows_from_the_p_value_at_the_rate_of_the_page():
    made = [of_scheme(marked=rung(0, 0.9, said(0.02)))]
    assert [rows(made, fpr)[0]["effectiveness"]["hits"] for fpr in (0.01, 0.05)] == [0, 1]


def test_forged_claims_are_security_not_robustness():
    forged = of_scheme(attack="forge", stage="evidence", curve=[rung(1, 0.9, said(0.5)), rung(2, 0.9, said(1e-9))])
    found = only([forged])
    assert found["robustness"] is None
    assert (found["security"]["forged"]["hits"], found["security"]["forged"]["trials"]) == (1, 1)


def test_fresh_keys_on_the_clean_host_count_once_a_seed():
    found = [nulls(1, 100), nulls(0, 20, AFTER_ATTACK, 10.0)]
    made = [of_scheme(attack=a, seed=s, nulls=found) for a in ("a", "b") for s in (0, 1)]
    found = only(made)["security"]
    assert (found["clean"]["hits"], found["clean"]["trials"]) == (2, 200)
    assert 0 < found["clean"]["low"] < 0.01 < found["clean"]["high"]
    assert (found["clean"]["kinds"]["fresh key"]["hits"], found["clean"]["beyond"]) == (2, False)
    assert (found["attacked"]["trials"], found["attacked"]["low"]) == (80, 0.0)


def test_embedding_time_is_relative_to_clean_training():
    made = [of_scheme(seed=s, timings_s={"host": 50.0, "embed": e}) for s, e in enumerate((50.0, 100.0))]
    made += [of_scheme(seed=2, timings_s={"host": 50.0})]
    assert only(made)["embed_ratio"]["mean"] == pytest.approx(1.5)


@pytest.mark.parametrize(
    "other",
    [
        {"profile": "small"},
        {"arch": "vgg"},
        {"dataset": "cifar10"},
        {"situation": "distill"},
        {"scheme_params": {"bits": 128}},
        {"owners": 2},
    ],
)
def test_records_that_ask_different_questions_never_share_a_row(other):
    assert len(rows([of_scheme(), of_scheme(seed=1), of_scheme(seed=2, **other)])) == 2


def test_rows_at_one_place_are_named_apart_by_what_differs():
    found = rows(
        [of_scheme(scheme_params={"bits": 128, "lam": 0.1}), of_scheme(scheme_params={"bits": 256, "lam": 0.1})]
    )
    assert [row["variant"] for row in found] == ["bits=128", "bits=256"]


def test_an_attack_with_other_parameters_is_another_attack():
    found = only([of_scheme(attack_params={"layer": "conv2"}), of_scheme(attack_params={"layer": "conv3"})])
    assert len(found["attacks"]) == 2
    assert all(label.startswith("pruning (") for label in found["attacks"])


def test_of_two_records_of_one_cell_the_first_counts():
    found = only([of_scheme(clean_accuracy=0.95), of_scheme(clean_accuracy=0.5)])
    assert found["fidelity"]["values"] == pytest.approx([-5.0])


def test_the_order_of_records_does_not_matter():
    made = benchmark_records()
    mixed = list(made)
    random.Random(1).shuffle(mixed)
    assert rows(mixed) == rows(made)


def test_failed_and_not_applicable_cells_keep_their_reasons():
    found = {row["scheme"]: row for row in rows(benchmark_records()) if row["profile"] == "quick"}
    failed = {"attack": "pruning-global", "status": "failed", "seeds": [2]}
    assert found["uchida-diff"]["problems"] == [
        {**failed, "reason": "RuntimeError: the loss is not finite after 12 steps"}
    ]
    assert found["uchida-diff"]["status"] == "ok"
    assert found["baseline-none"]["status"] == "not applicable"
    assert found["baseline-none"]["problems"][0]["seeds"] == [0, 1]
    assert found["deepstamp"]["status"] == "failed"
    assert found["deepstamp"]["effectiveness"] is None


def test_seeds_of_different_data_or_code_are_flagged():
    assert only([of_scheme(), of_scheme(seed=1)])["warnings"] == []
    assert only([of_scheme(), of_scheme(seed=1, provenance={"data_checksum": "other"})])["warnings"] == [
        "records differ in data checksum"
    ]
    (warning,) = only([of_scheme(), of_scheme(seed=1, provenance={"source_hash": "0" * 64})])["warnings"]
    assert "pruning" in warning


def test_the_command_repeats_the_cell_and_quotes_what_a_shell_would_run():
    made = [of_scheme(seed=s, scheme_params={"bits": 64, "note": "$(rm -rf x); 'y'"}) for s in (0, 4)]
    source, command = only(made)["commands"]
    assert source == "git checkout 19289c8a44b7b3f0"
    assert command == (
        "bench run --scheme uchida-random --attack pruning --arch wrn-10-4 --dataset digits-m --situation train "
        "--profile quick --seeds 5 --threads 1 "
        """--set uchida-random.bits=64 --set 'uchida-random.note=$(rm -rf x); '"'"'y'"'"''"""
    )


def test_the_command_says_only_what_the_command_line_knows():
    made = of_scheme("uchida-posthoc", owners=3, attack_params={"ladder": [10, 20], "layer": None})
    ((_, command),) = [row["commands"] for row in rows([made], 0.05)]
    assert "--situation" not in command
    assert command.endswith(
        "--owners 3 --fpr 0.05 --threads 1 "
        "--set uchida-posthoc.bits=256 --set pruning.ladder=10,20 --set pruning.layer=none"
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"git_revision": "abcdef0", "threads": 8}, ["git checkout abcdef0"]),
        ({"git_revision": "abcdef0", "git_dirty": True}, ["git checkout abcdef0  # and what was not committed then"]),
        ({"git_revision": None}, []),
        ({"git_revision": "--upload-pack=evil"}, []),
    ],
)
def test_the_commands_begin_with_the_source_and_say_the_threads(source, expected):
    *checkout, first, second = only([of_scheme(attack=attack, provenance=source) for attack in "ab"])["commands"]
    assert checkout == expected, "once, and only a revision that git would take for one"
    assert f" --threads {source.get('threads', 1)}" in first
    assert f" --threads {source.get('threads', 1)}" in second


def test_what_does_not_apply_to_a_row_is_not_asked_of_it():
    holds = [rung(10, 0.9, said(1e-9))]
    made = [of_scheme("weights", a, curve=holds) for a in ("a", "b")]
    made += [of_scheme("data", "a", curve=holds), idle("not applicable", "data", "b")]
    made += [of_scheme("failing", "a", curve=holds), idle("failed", "failing", "b")]
    found = {row["scheme"]: (row["robustness"]["covered"], row["robustness"]["of"]) for row in rows(made)}
    assert found == {"weights": (2, 2), "data": (1, 1), "failing": (1, 2)}


# ---- submissions ---------------------------------------------------------------------------------------------------
def invented(attacks=("pruning", "pruning-global", "made-up"), **fields):
    """What somebody would send to stand first: five equal seeds, certain beyond doubt, unharmed by everything."""
    fields = {"clean_accuracy": 0.5, "nulls": [nulls(0, 10_000)], "profile": "quick", **fields}
    curve = [rung(strength, 0.99, said(1e-300, 0.0)) for strength in (10, 50, 90)]
    marked = rung(0, 0.99, said(1e-300, 0.0))
    return [of_scheme("aaa-best", a, s, curve, marked, **fields) for a in attacks for s in range(5)]


def test_submissions_change_no_row_that_was_computed_here():
    own = benchmark_records()
    other = [*invented(), of_scheme("uchida-random", "made-up", scheme_params={"bits": 1}), *own[:6]]
    found = rows(own, submitted=other)
    assert [row for row in found if row["origin"] == "computed here"] == rows(own)
    reported = [row for row in found if row["origin"] == "self-reported"]
    assert {row["scheme"] for row in reported} >= {"aaa-best", "uchida-random", own[0].cell.scheme}
    assert len({row["id"] for row in found}) == len(found)


def test_the_command_hands_submissions_over_apart_and_cards_of_all_schemes(tmp_path, monkeypatch):
    monkeypatch.setattr(leaderboard, "__file__", str(tmp_path / "__init__.py"))
    save_record(invented(("pruning",))[0], tmp_path / "submissions")
    run_dir = RunDir(tmp_path / "runs")
    save_record(of_scheme(), run_dir.records)
    payload = Page(write_page(run_dir, tmp_path / "site").read_text(encoding="utf-8")).payload
    assert {row["scheme"]: row["origin"] for row in payload["rows"]} == {
        "uchida-random": "computed here",
        "aaa-best": "self-reported",
    }
    assert payload["cards"]["schemes"]["uchida-random"]["link"] == "https://arxiv.org/abs/1701.04082"
    assert payload["cards"]["attacks"]["pruning"]["adversary"].startswith("white-box access")


def test_a_submission_faces_what_own_rows_faced_and_equal_seeds_are_said():
    own = [of_scheme("own", a, curve=[rung(10, 0.9, said(1e-9))], arch="wrn-10-4") for a in ("a", "b")]
    (row,) = [row for row in rows(own, submitted=invented(("a",))) if row["scheme"] == "aaa-best"]
    assert (row["robustness"]["covered"], row["robustness"]["of"]) == (1, 2)
    assert row["warnings"] == ["seeds of a agree in every number"]


def test_long_curves_and_texts_are_cut_but_judged_whole():
    curve = [rung(i + 1, 0.9, said(0.5 if i == 500 else 1e-9)) for i in range(1000)]
    found = only([of_scheme(curve=curve, scheme_params={"note": "x" * 2000})])
    (drawn,) = found["attacks"]["pruning"]["curves"]
    assert len(drawn["strength"]) == 40
    assert (drawn["strength"][0], drawn["strength"][-1]) == (0, 1000)
    assert found["robustness"]["hits"] == 0
    assert len(found["params"]["note"]) < 510


# ---- ranks -----------------------------------------------------------------------------------------------------------
def ranks_of(made):
    return {row["scheme"]: row["rank"] and (row["rank"]["low"], row["rank"]["high"], row["rank"]["of"]) for row in made}


def test_seven_seeds_tell_three_schemes_apart_and_six_do_not():
    assert ranks_of(rows(contest())) == {"strong": (1, 1, 3), "weak": (2, 3, 3), "faint": (2, 3, 3)}
    found = rows(contest(seeds=6))
    assert set(ranks_of(found).values()) == {(1, 3, 3)}
    assert {(row["rank"]["seeds"], row["rank"]["needed"]) for row in found} == {(6, 7)}


def test_demonstrations_baselines_submissions_and_single_seeds_have_no_rank():
    assert set(ranks_of(rows(contest("quick"))).values()) == {None}
    assert set(ranks_of(rows(contest(seeds=1))).values()) == {None}
    found = rows([*contest(), *contest(carrier="none", arch="vgg16")], submitted=contest(situation="distill"))
    assert [row["rank"] is None for row in found] == [row["baseline"] or row["origin"] == REPORTED for row in found]
    assert sum(row["rank"] is None for row in found) == 6


def test_ranks_of_other_parameters_are_other_ranks():
    made = [*contest(), *contest(scheme_params={"bits": 8})]
    assert {found[2] for found in ranks_of(rows(made)).values() if found} == {6}
