"""Which schemes and attacks have nothing to do with each other, and why?"""

from __future__ import annotations

from fnmatch import fnmatchcase

from bench.contract.attack import AttackCard
from bench.contract.scheme import SchemeCard

__all__ = ["not_applicable"]


def not_applicable(scheme: SchemeCard, *attacks: AttackCard) -> str | None:
    """Why a scheme and a chain of attacks make no cell together; None if they do."""
    return next((reason for attack in attacks if (reason := _no_cell(scheme, attack))), None)


def _no_cell(scheme: SchemeCard, attack: AttackCard) -> str | None:
    on_data = scheme.access == "data set"
    if attack.stage in ("data", "training") and scheme.carrier not in ("data", "none"):
        who = "the published images" if attack.stage == "data" else "somebody else's training"
        return f"{attack.name} acts on {who}, but {scheme.name} is embedded by the model's owner while training."
    if attack.stage == "inference" and scheme.access == "white-box":
        return f"{attack.name} acts on queries, but {scheme.name} reads the weights and asks none."
    if attack.stage in ("model", "inference", "training") and on_data:
        return f"{attack.name} acts on a model, but {scheme.name} is verified on the data set."
    if attack.schemes and not any(fnmatchcase(scheme.name, pattern) for pattern in attack.schemes):
        return f"{attack.name} is made for {' and '.join(attack.schemes)}, not for {scheme.name}."
    if scheme.carrier not in attack.carriers:
        return f"{attack.name} needs a mark carried by {' or '.join(attack.carriers)}, not by {scheme.carrier}."
    return None
