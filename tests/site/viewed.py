"""A benchmark of three schemes under two attacks, small enough to say what each view must show."""

from tests.fakes import idle, nulls, of_scheme, rung, said

NEEDS = {"access": "white-box", "images": [], "knows": [], "copies": False}
CARD = {"title": "T", "paper": "P", "link": "https://example.org", "code": None, "extensions": ["a better null"]}
CARDS = {
    "schemes": dict.fromkeys(("firm", "cheap", "frail"), CARD),
    "attacks": {
        "tuning": {**CARD, "needs": {**NEEDS, "images": ["own"]}, "adversary": "white-box access; own images"},
        "querying": {**CARD, "needs": {**NEEDS, "access": "scores"}, "adversary": "scores access; no images"},
    },
}


def ladder(*rungs):
    """Rungs 10, 20 ... of so many points lost with such a p-value."""
    return [rung(10 * (i + 1), 0.9 - lost / 100, said(p)) for i, (lost, p) in enumerate(rungs)]


# Per scheme: what is needed to verify, the accuracy of its marked model, its rungs under tuning and under querying.
SCHEMES = {
    "firm": ("white-box", ladder((2, 1e-9), (12, 1e-3)), ladder((1, 1e-9), (3, 1e-9))),
    "cheap": ("labels", ladder((2, 1e-9), (4, 0.5)), ladder((1, 1e-9), (8, 0.5))),
    "frail": ("scores", ladder((1, 0.5), (2, 0.9)), ladder((1, 0.5), (2, 0.5))),
}
CLEAN = {"firm": 0.95, "cheap": 0.905, "frail": 0.92}


def records(profile="small", seeds=2):
    made = [
        of_scheme(
            scheme, attack, seed, curve, profile=profile, access=access, clean_accuracy=CLEAN[scheme],
            nulls=[nulls(1, 50)], timings_s={"host": 10.0, "embed": 2.0},
        )
        for scheme, (access, *curves) in SCHEMES.items()
        for attack, curve in zip(("tuning", "querying"), curves, strict=True)
        for seed in range(seeds)
    ]  # fmt: skip
    return [*made, idle("not applicable", "firm", "blur", profile=profile, access="white-box", why="no data")]
