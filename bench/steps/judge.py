"""Who decides? Claims are judged here: utility on the held-out images, one verdict per owner. Attacks never see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from bench.api import Claim, ContractError, ImageSet, Key, Point, Scheme, Suspect, Verdict
from bench.contract.networks import clock_s
from bench.data.image_quality import quality, residual_energy
from bench.steps import training
from bench.steps.ownership import Published
from bench.steps.workspace import Job, start

__all__ = ["Judge", "examine"]


class _Filtered(nn.Module):
    """A network behind a transform of its inputs."""

    def __init__(self, transform: Callable[[Tensor], Tensor], model: nn.Module) -> None:
        super().__init__()
        self.transform, self.model = transform, model

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.model(self.transform(x))
        return answer


def examine(
    scheme: Scheme,
    keys: Iterable[Key],
    *,
    model: nn.Module | None = None,
    images: ImageSet | None = None,
    details: bool = True,
) -> list[Verdict]:
    """One verdict per key on the same suspect, with the queries that each needed.

    Args:
        scheme: whose keys these are.
        keys: of the claimants.
        model: the suspect network; None where the data set alone is examined.
        images: the suspect data set.
        details: grant what the card asks for beyond its access, which a p-value never needs.

    Raises:
        ContractError: `verify` returns something else than a verdict, or fills in what the harness decides.
    """
    card = scheme.card
    suspect = Suspect(card.access, model=model, images=images, also=card.also if details else None)
    found = []
    for key in keys:
        before = suspect.queries
        verdict = scheme.verify(suspect, key)
        if not isinstance(verdict, Verdict) or verdict.detected is not None:
            raise ContractError(f"Expected verify to return a Verdict without `detected`, but got {verdict!r}.")
        found.append(verdict.model_copy(update={"queries": suspect.queries - before}))
    return found


class Judge:
    """Judges claims about one scheme's marks on one published training set."""

    def __init__(self, job: Job, scheme: Scheme, keys: Sequence[Key], published: Published) -> None:
        self.job, self.scheme, self.keys, self.published = job, scheme, keys, published

    def __call__(self, claim: Claim) -> Point:
        """The rung that a claim makes: utility, verdicts, and what the images and the verdicts cost."""
        model, images = self.suspect(claim)
        keys = self.keys if claim.key is None else [claim.key.to(self.job.device)]
        start_s = clock_s(self.job.device)
        # Details may cost many times the verdict: worth it once for each training, not at each rung of a ladder.
        trained = claim.strength == 0 or self.job.attack.card.stage in ("data", "training")
        verdicts = self.verdicts(model, images, keys, details=trained)
        verify_time_s = clock_s(self.job.device) - start_s
        return Point(
            strength=claim.strength,
            test_accuracy=training.accuracy(model, self.job.data.heldout),
            verdicts=verdicts,
            measures={**self._image_quality(claim), **claim.measures},
            verify_time_s=verify_time_s,
        )

    def suspect(self, claim: Claim) -> tuple[nn.Module, ImageSet]:
        """The network and the data set that a claim puts before the judge; what it leaves alone is the victim's.

        Images alone are what a learner of this cell trains a network on.
        """
        model = claim.model
        if model is None and claim.images is not None:
            job = self.job
            rng = job.rng("learner", job.spec["attack"])
            model = job.train(start(job), claim.images.to(job.device), job.recipe, rng).model
        if model is None:
            model = self.job.model("mark" if "mark" in self.job.inputs else "host")
        if claim.transform is not None:
            model = _Filtered(claim.transform, model)
        images = self.published.images if claim.images is None else claim.images.to(self.job.device)
        return model.to(self.job.device).eval(), images

    def verdicts(
        self, model: nn.Module | None, images: ImageSet, keys: Iterable[Key], *, details: bool = True
    ) -> list[Verdict]:
        """One verdict per key on the same suspect, with the queries that each needed.

        Args:
            model: the suspect network; None where the data set alone is examined.
            images: the suspect data set.
            keys: of the claimants.
            details: grant what the card asks for beyond its access, which a p-value never needs.
        """
        return examine(self.scheme, keys, model=model, images=images, details=details)

    def p_values(self, claim: Claim, keys: Iterable[Key]) -> list[float]:
        """The p-value of each key, or of the one that the claim is made with."""
        if claim.key is not None:
            keys = [claim.key.to(self.job.device)]
        if self.scheme.card.access == "data set" and claim.images is not None:
            model, images = None, claim.images.to(self.job.device)
        else:
            model, images = self.suspect(claim)
        return [verdict.p_value for verdict in self.verdicts(model, images, keys, details=False)]

    def _image_quality(self, claim: Claim) -> dict[str, float]:
        """How near claimed images come to the owner's before the mark, and how much of the mark is left in them."""
        published, originals = self.published.images.images, self.published.originals
        if claim.images is None or claim.images.images.shape != published.shape or published.shape != originals.shape:
            return {}
        claimed = claim.images.images.to(self.job.device)
        found = quality(claimed, originals)
        if not torch.equal(published, originals):
            found["residual_energy"] = residual_energy(originals, published, claimed)
        return found
