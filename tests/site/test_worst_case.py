"""The page, which finds worst cases for its reader's choice, agrees with `bench.metrics` at every choice."""

import random

import pytest

from bench.metrics.robustness import removal_cost, survival, worst_case
from leaderboard import build
from leaderboard.outcomes import Stream, outcomes, steps, together
from tests.fakes import idle, of_scheme, rung, said

FOUND = """([choice, scheme]) => {
    Object.assign(state, defaults, { profile: "small", ...choice });
    settle();
    const found = worst(data.rows.find((row) => row.scheme === scheme));
    const { hits, trials, undecided, low, high, mean, covered, of, removal, p } = found || {};
    return found && { hits, trials, undecided, low, high, mean, covered, of, removal, p };
}"""
P_VALUES = (1e-300, 1e-30, 0.0099, 0.01, 0.0101, 0.5, 1.0)
NEEDS = {"access": "white-box", "images": [], "knows": [], "copies": False}


def card(**needs):
    return {"title": "T", "paper": "P", "link": "https://example.org", "code": None, "needs": {**NEEDS, **needs}}


CARDS = {
    "attacks": {
        "pruning": card(),
        "ftal": card(images=["own"]),
        "knockoff": card(access="scores", images=["out of domain"]),
        "blur": card(access="none", images=["the owner's"]),
        "average": card(copies=True),
        "distil": card(images=["own unlabelled"]),
    }
}


def drawn(scheme, attack, seed, owners=1, **fields):
    """A record whose every number is drawn: losses at and beside whole points, evidence at and beside the rate."""
    draw = random.Random(f"{scheme}{attack}{seed}")

    def at(strength):
        accuracy = 0.9 - draw.choice((-0.013, 0.0, 0.01, 0.05, 0.0501, 0.1, 0.123456, 0.4)) if strength else 0.9
        verdicts = [said(draw.choice(P_VALUES[: 3 if draw.random() < 0.8 else 7])) for _ in range(owners)]
        time_s = strength * draw.choice((0.1, 1.0, 10.0))
        return rung(strength, accuracy, *verdicts).model_copy(update={"attack_time_s": time_s})

    curve = [at(strength) for strength in (1, 2, 5, 10)]
    if draw.random() < 0.15:
        curve[1] = curve[1].model_copy(update={"test_accuracy": None})
    return of_scheme(
        scheme,
        attack,
        seed,
        curve,
        at(0),
        profile="small",
        owners=owners,
        timings_s={"host": 10.0, "embed": 1.0},
        **fields,
    )


def records():
    made = [
        drawn(s, a, seed, owners)
        for s, owners in (("one", 1), ("many", 3), ("few", 2))
        for a in CARDS["attacks"]
        for seed in range(2 if s == "few" else 6)
    ]
    failed = [("one", "ftal", 2), ("many", "pruning", 0), ("many", "blur", 1)]
    made = [r for r in made if (r.cell.scheme, r.cell.attack, r.cell.seed) not in failed]
    made += [idle("failed", s, a, seed, profile="small", owners=1 if s == "one" else 3) for s, a, seed in failed]
    return [
        *made,
        drawn("one", "forge", 0, stage="evidence"),
        idle("not applicable", "few", "dp", profile="small", owners=2),
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return build(records(), tmp_path_factory.mktemp("drawn"), cards=CARDS)


OPEN = {  # a choice of the attacker, and the attacks that are open to it
    (): {"pruning", "ftal", "knockoff", "blur", "average", "distil"},
    (("lacks", "labelled"),): {"pruning", "knockoff", "blur", "average", "distil"},
    (("lacks", "unlabelled"),): {"pruning", "ftal", "knockoff", "blur", "average", "distil"},
    (("lacks", "labelled unlabelled copies"),): {"pruning", "knockoff", "blur"},
    (("has", "scores"),): {"knockoff", "blur"},
    (("has", "labels"),): {"blur"},
    (("attack", "ftal"),): {"ftal"},
}


def affordable(record, share):
    """The record without the rungs that take longer than so many trainings; without any, the claim stays as it was."""
    kept = [p for p in record.curve if p.attack_time_s <= 10 * share + 1e-9]
    untouched = record.marked and [record.marked.model_copy(update={"strength": 0.5})]
    return record.model_copy(update={"curve": kept or untouched or []})


@pytest.mark.parametrize("choice", OPEN, ids=str)
def test_worst_case_and_removal_cost_are_those_of_the_metrics_at_any_choice(open_tab, page, choice):
    tab = open_tab(page, "#profile=small")
    seen = set()
    for loss in (0, 1, 5, 10, 30):
        for most in ("", "0.1", "1"):
            said = {**dict(choice), "loss": str(loss), "most": most}
            for scheme in ("one", "many", "few"):
                own = [r for r in records() if r.cell.scheme == scheme and r.cell.attack in OPEN[choice]]
                own = [affordable(r, float(most or 1e9)) for r in own]
                expected, cost = worst_case(own, budget_pp=loss), removal_cost(own)
                found = tab.page.evaluate(FOUND, [said, scheme])
                if expected is None:
                    assert found is None
                    continue
                for name in ("hits", "trials", "undecided"):
                    assert found[name] == getattr(expected, name), (said, scheme, name)
                for name in ("low", "high", "mean"):
                    assert found[name] == pytest.approx(getattr(expected, name), abs=1e-9), (said, scheme, name)
                assert found["covered"] == len({r.cell.attack for r in own if r.status == "ok"})
                assert (found["removal"] is None) == (cost is None)
                if cost:
                    assert found["removal"]["more"] == cost.more
                    assert found["removal"]["pp"] == pytest.approx(cost.pp, abs=0.0017)
                seen.add((expected.hits, expected.trials))
    assert len(seen) > 3, "the choices make a difference"


def test_the_weakest_evidence_is_over_all_affordable_rungs(open_tab, tmp_path):
    curve = [rung(10, 0.89, said(1e-6)), rung(20, 0.85, said(1e-3)), rung(30, 0.5, said(0.7))]
    tab = open_tab(build([of_scheme(curve=curve, profile="small")], tmp_path), "#profile=small")
    for loss, p in ((0, 1e-9), (1, 1e-6), (5, 1e-3), (30, 1e-3)):
        found = tab.page.evaluate(FOUND, [{"loss": str(loss)}, "uchida-random"])
        assert found["p"] == pytest.approx(p, rel=0.003)


def test_queries_and_images_limit_the_attacker_and_unknown_costs_do_not(open_tab, tmp_path):
    broken = [rung(100, 0.9, said(0.5)).model_copy(update={"measures": {"victim_queries": 400.0}})]
    split = {"split": {"owner": 900, "adversary": 450, "heldout": 100}}
    made = [
        of_scheme("asks", "knockoff", curve=broken, profile="small"),
        of_scheme("tunes", "ftal", curve=[rung(1, 0.9, said(0.5))], profile="small", provenance=split),
        of_scheme("unknown", "made-up", curve=[rung(1, 0.9, said(0.5))], profile="small"),
    ]
    tab = open_tab(build(made, tmp_path, cards=CARDS), "#profile=small")

    def hits(by, most):
        names = ("asks", "tunes", "unknown")
        return [tab.page.evaluate(FOUND, [{"by": by, "most": most}, name])["hits"] for name in names]

    assert hits("queries", "300") == [1, 0, 0]
    assert hits("queries", "1000") == [0, 0, 0]
    assert hits("images", "300") == [1, 1, 0]
    assert hits("images", "1000") == [0, 0, 0]


def test_a_chain_needs_what_all_its_attacks_need_and_nothing_known_is_nothing_excluded():
    assert steps("pruning=50+ftal (1a2b)") == ["pruning", "ftal"]
    weak, strong = {**NEEDS, "access": "labels", "images": ["own"]}, {**NEEDS, "copies": True, "knows": ["scheme"]}
    assert together([weak, strong]) == {
        "access": "white-box", "images": ["own"], "knows": ["scheme"], "copies": True,
    }  # fmt: skip
    assert together([weak, None]) is None
    assert together([]) is None


def test_codes_round_against_the_owner_and_keep_the_verdict_exact():
    stream = Stream(0.02)
    made = of_scheme(
        marked=rung(0, 0.9, said(0.02)), curve=[rung(1, 0.85, said(0.0200001)), rung(2, 0.8499, said(0.0))]
    )
    layout = stream.add(outcomes([made]), None, "epochs")
    assert layout == [[0, 3, 1, 0xFFFF, [0.0, None, None], None]]
    codes = [int.from_bytes(bytes(stream)[i : i + 2], "little") for i in range(0, len(bytes(stream)), 2)]
    losses, evidence = codes[0::2], codes[1::2]
    assert losses == [0x8000, 0x8000 + 1500, 0x8000 + 1503]
    assert [code & 1 for code in evidence] == [1, 0, 1]
    assert survival([made], 0.02, 5).hits == 0
