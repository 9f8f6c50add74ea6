"""Protecting Intellectual Property of Deep Neural Networks with Watermarking.

Zhang, Gu, Jang, Wu, Stoecklin, Huang, Molloy, 2018, https://doi.org/10.1145/3196494.3196550
Code: no authors' implementation published.

Where this differs from the paper, or where the text that we had (sections 4.1 to 5.4) is silent:

* Number of triggers ("percentage"): `fraction` of the source class, but never fewer than `probe`.
* `repeat`: each trigger stands several times in the training set (paper: once), so that two or three epochs of
  fine-tuning suffice; all clean images stay, as in the paper, and the source class is not repeated.
* Augmentation: the authors' networks seem to use none, so triggers are exempt from the host's (`exact`).
* Content: the paper shows one logo, "TEST"; ours has four random letters, place and colour, all secret.
* Unrelated: the paper takes the digit 1 of MNIST (for objects) and a letter m of a handwriting collection (for
  digits); ours are scikit-learn's handwritten 1 and a drawn m, in ink and on paper of secret colours.
* Noise: one fixed pattern or fresh noise per image, the text allows both: `kind`, of which a record keeps the
  value (default `fixed`). Deviation, cell size and the secret tint of fresh noise are our choices.
* Verification: the paper looks at the trigger accuracy. A null model's rate is not 1/classes (it depends on how
  far the pattern confuses it), so ours ranks the key's answer against fresh random keys on the same suspect.
* The ranked statistic asks at falling strengths too: trigger accuracy alone ties with look-alike keys.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from bench.api import (
    ContractError,
    Field,
    Host,
    ImageSet,
    Key,
    Paper,
    Params,
    Rng,
    Scheme,
    SchemeCard,
    Suspect,
    Verdict,
    digest,
    rank_p_value,
)
from schemes._glyphs import LETTERS, letter_m_bank, poses, text_mask, written_one_bank

PAPER = Paper(
    "Protecting Intellectual Property of Deep Neural Networks with Watermarking",
    "Zhang, Gu, Jang, Wu, Stoecklin, Huang, Molloy",
    2018,
    "https://doi.org/10.1145/3196494.3196550",
)
RANKED = "the p-value: an exact rank against fresh random keys on the same suspect, at falling trigger strengths"
STRENGTHS = tuple(step / 10 for step in range(10, 0, -1))
SOURCES = 20  # classes that may be the source: bounds the pool that each key carries
FRESH = 100
CHUNK = 16
TINY = {"probe": 8, "decoys": 19}


class Pool(NamedTuple):
    """Images that every key's probe is made from: S x n x C x H x W uint8, n of each of S classes, and the classes."""

    images: Tensor
    labels: Tensor


class Secret(NamedTuple):
    """What a key draws: the source class (its row in the pool), the target class and the pattern."""

    row: int
    target: int
    pattern: Mapping[str, Tensor]


class TriggerSet(Scheme):
    """What the three kinds share; a kind says what its secret pattern is and how it is put on images."""

    class Params(Params):
        """Hyper-parameters of all kinds."""

        fraction: float = Field(0.1, gt=0, le=1, description="triggers, as a fraction of the source class")
        probe: int = Field(32, ge=1, description="triggers that a verdict rests on; the least number of triggers")
        repeat: int = Field(5, ge=1, description="times that each trigger stands in the training set")
        exact: bool = Field(True, description="triggers are exempt from augmentation")
        decoys: int = Field(199, ge=1, description="fresh random keys that a claim is ranked against")

    @abstractmethod
    def pattern(self, shape: tuple[int, int, int], generator: torch.Generator) -> dict[str, Tensor]:
        """The secret pattern for images of `shape` (C x H x W)."""

    @abstractmethod
    def stamp(self, images: Tensor, secret: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
        """Triggers made of N x C x H x W uint8 images, the same shape and type."""

    def keygen(self, host: Host, rng: Rng) -> Key:
        """Draw (source, target, pattern) and make the triggers, from the pool first (Algorithm 1, lines 2 to 8)."""
        rows = self._pool_rows(host)
        labels = host.images.labels[rows[:, 0].to(host.images.labels.device)]
        pool = Pool(host.images.images[rows.to(host.images.images.device)], labels)
        secret = self._draw(pool, len(host.dataset.classes), rng.torch("secret"))
        source = int(labels[secret.row])
        more = self._more(host.images, source, rows, rng.torch("more"))
        heldout = host.heldout.images[(host.heldout.labels == source).to(host.heldout.images.device)][:FRESH]
        tensors = {
            "triggers": self.stamp(torch.cat([pool.images[secret.row], more]), secret.pattern, rng.torch("stamp")),
            "fresh": self.stamp(heldout, secret.pattern, rng.torch("fresh")),
            "pool": pool.images,
            "pool_labels": pool.labels,
            **secret.pattern,
        }
        classes = len(host.dataset.classes)
        return Key(
            {name: tensor.to(host.device) for name, tensor in tensors.items()},
            {"source": source, "target": secret.target, "row": secret.row, "classes": classes},
        )

    def mark_data(self, images: ImageSet, key: Key) -> ImageSet:
        """All images as they are, and the triggers with the target label (Algorithm 1, line 10)."""
        triggers = key.tensors["triggers"].repeat(self.params.repeat, 1, 1, 1)
        labels = torch.full((len(triggers),), _number(key, "target"), dtype=torch.int64)
        return images.extend(triggers, labels, exact=self.params.exact)

    def verify(self, suspect: Suspect, key: Key) -> Verdict:
        """Rank the key's firmness among that of decoys: keys drawn like this one, unknown to anybody.

        A null suspect does not depend on the key, so the key is one more draw from the decoys' distribution.
        """
        pool, target = Pool(key.tensors["pool"], key.tensors["pool_labels"]), _number(key, "target")
        row, probe = _number(key, "row"), pool.images.shape[1]
        triggers, fresh = key.tensors["triggers"], key.tensors["fresh"]
        own = self._firmness(suspect, triggers[None, :probe], pool.images[[row]], torch.tensor([target]))[0]
        decoys = self._decoys(suspect, pool, _number(key, "classes"))
        details: dict[str, Any] = {
            "trigger_accuracy": _share(suspect.labels(triggers) == target),
            "decoy_mean": sum(decoys) / len(decoys),
            "decoy_max": max(decoys),
        }
        if len(fresh):
            details["fresh_trigger_accuracy"] = _share(suspect.labels(fresh) == target)
        return Verdict(statistic=own, p_value=rank_p_value(own, decoys), details=details)

    def _pool_rows(self, host: Host) -> Tensor:
        """S x n rows of the training set: n of each source class. The same for all keys, so it tells none."""
        labels = host.images.labels.cpu()
        order = torch.randperm(len(labels), generator=Rng("zhang-pool", host.dataset.name).torch())
        counts = labels.bincount(minlength=len(host.dataset.classes))
        size = min(self.params.probe, int(counts.max()))
        sources = [c for c in labels[order].unique(sorted=True).tolist() if counts[c] >= size][:SOURCES]
        return torch.stack([order[labels[order] == c][:size] for c in sources])

    def _more(self, images: ImageSet, source: int, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Further images of the source class, if its fraction is more than the pool holds."""
        members = (images.labels.cpu() == source).nonzero().flatten()
        count = max(0, round(self.params.fraction * len(members)) - rows.shape[1])
        others = members[~torch.isin(members, rows)]
        chosen = others[torch.randperm(len(others), generator=generator)[:count]]
        return images.images[chosen.to(images.images.device)]

    def _draw(self, pool: Pool, classes: int, generator: torch.Generator) -> Secret:
        row = int(torch.randint(len(pool.labels), (1,), generator=generator))
        offset = int(torch.randint(1, classes, (1,), generator=generator))
        channels, height, width = pool.images.shape[2:]
        return Secret(row, (int(pool.labels[row]) + offset) % classes, self.pattern((channels, height, width), generator))

    def _decoys(self, suspect: Suspect, pool: Pool, classes: int) -> list[float]:
        """Firmness of fresh keys on this suspect; they depend on the pool alone, so all claims share them."""
        content = hashlib.sha256(pool.images.cpu().numpy().tobytes()).hexdigest()
        stream = Rng("zhang-decoys", digest([self.card.name, self.params.model_dump(), classes, content]))
        return suspect.memo(repr(stream), lambda: self._decoy_firmness(suspect, pool, classes, stream))

    def _decoy_firmness(self, suspect: Suspect, pool: Pool, classes: int, stream: Rng) -> list[float]:
        firmness: list[float] = []
        for chunk in torch.arange(self.params.decoys).split(CHUNK):
            streams = [stream.child(number) for number in chunk.tolist()]
            secrets = [self._draw(pool, classes, one.torch("secret")) for one in streams]
            sources = pool.images[[secret.row for secret in secrets]]
            triggers = torch.stack(
                [
                    self.stamp(images, secret.pattern, one.torch("stamp"))
                    for images, secret, one in zip(sources, secrets, streams, strict=True)
                ]
            )
            targets = torch.tensor([secret.target for secret in secrets])
            firmness += self._firmness(suspect, triggers, sources, targets)
        return firmness

    @staticmethod
    def _firmness(suspect: Suspect, triggers: Tensor, sources: Tensor, targets: Tensor) -> list[float]:
        """How firmly K trigger sets (K x n x C x H x W) call their targets: in [0, 1], 1 at the firmest.

        The triggers fade into their sources in ten steps; hits are summed until fewer than half of them hit. With
        labels alone this tells the trained pattern from a look-alike, which also hits, but fades sooner.
        """
        per_key = triggers.shape[1]
        hits = torch.zeros(len(triggers), dtype=torch.int64)
        going = torch.arange(len(triggers))
        for strength in STRENGTHS:
            rows = going.to(triggers.device)
            faded = torch.lerp(sources[rows].float(), triggers[rows].float(), strength).round().to(torch.uint8)
            answers = suspect.labels(faded.flatten(0, 1)).cpu().view(-1, per_key)
            new = (answers == targets[going, None]).sum(1)
            hits[going] += new
            going = going[2 * new >= per_key]
            if not len(going):
                break
        return [count / (per_key * len(STRENGTHS)) for count in hits.tolist()]


class Content(TriggerSet):
    """A text logo on images of the source class."""

    card = SchemeCard(
        name="zhang-content",
        title="Trigger set: text logo",
        paper=PAPER,
        carrier="behaviour",
        access="labels",
        payload="zero-bit",
        extensions=("random text, place and colour of the logo", RANKED),
        tiny=TINY,
    )

    def pattern(self, shape: tuple[int, int, int], generator: torch.Generator) -> dict[str, Tensor]:
        """Four letters at a random place (`mask`, H x W bool) in a saturated `colour` (C, uint8)."""
        channels, height, width = shape
        letters = torch.randint(len(LETTERS), (4,), generator=generator).tolist()
        dots = text_mask("".join(sorted(LETTERS)[i] for i in letters), height, width)
        top = int(torch.randint(height - dots.shape[0] + 1, (1,), generator=generator))
        left = int(torch.randint(width - dots.shape[1] + 1, (1,), generator=generator))
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[top : top + dots.shape[0], left : left + dots.shape[1]] = dots
        return {"mask": mask, "colour": _saturated(channels, generator)}

    def stamp(self, images: Tensor, secret: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
        """The logo's pixels in its colour; all others untouched."""
        mask, colour = (secret[name].to(images.device) for name in ("mask", "colour"))
        return torch.where(mask, colour[:, None, None], images)


class Unrelated(TriggerSet):
    """Images of another task; the source class is only what they fade into at verification."""

    card = SchemeCard(
        name="zhang-unrelated",
        title="Trigger set: unrelated images",
        paper=PAPER,
        carrier="behaviour",
        access="labels",
        payload="zero-bit",
        extensions=("secret colours of ink and paper", "a drawn letter m in place of a handwritten one", RANKED),
        tiny=TINY,
    )

    def keygen(self, host: Host, rng: Rng) -> Key:
        """As for the other kinds; the sign is what the host's task does not know."""
        self.sign = "m" if host.dataset.content == "digits" else "1"
        return super().keygen(host, rng)

    def pattern(self, shape: tuple[int, int, int], generator: torch.Generator) -> dict[str, Tensor]:
        """Colours in [0, 1], C each, at least 0.3 apart on average, of `ink` and `paper`."""
        ink, paper = torch.rand(2, shape[0], generator=generator)
        return {"ink": ink, "paper": paper}

    def stamp(self, images: Tensor, secret: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
        """Signs in random poses."""
        bank = letter_m_bank() 
        sign = poses(bank, len(images), (images.shape[2], images.shape[3]), generator)
        ink, paper = (secret[name][:, None, None].cpu() for name in ("ink", "paper"))
        return ((paper + sign * (ink - paper)) * 255).round().to(torch.uint8).to(images.device)


class Noise(TriggerSet):
    class Params(TriggerSet.Params):
        kind: Literal["fixed", "fresh"] = "fixed"
        std: float = 0.25
        cell: int = 1
        tint: float = 0.0
    card = SchemeCard(
        name="zhang-noise",
        title="Trigger set: noise",
        paper=PAPER,
        carrier="behaviour",
        access="labels",
        payload="zero-bit",
        extensions=(RANKED,),
        tiny=TINY,
    )
    def _grain(self, count, shape, generator):
        c, h, w = shape
        s=self.params.cell
        z = torch.randn(count, c, -(-h // s), -(-w // s), generator=generator)
        return z.repeat_interleave(s, 2).repeat_interleave(s, 3)[:, :, :h, :w] * self.params.std
    def pattern(self, shape, generator):
        tint = self.params.tint * torch.randn(shape[0], 1, 1, generator=generator)
        return {"tint": tint, "noise": self._grain(1, shape, generator)[0] + tint}
    def stamp(self, images, secret, generator):
        n = secret["noise"] if self.params.kind == "fixed" else secret["tint"] + self._grain(len(images), images.shape[1:], generator)
        return ((images.float() / 255 + n).clamp(0, 1) * 255).round().to(torch.uint8)


def _saturated(channels: int, generator: torch.Generator) -> Tensor:
    """A colour of full saturation and value, uint8; white where there is only one channel."""
    hue = 6 * torch.rand(1, generator=generator)
    wheel = (hue + torch.tensor([0.0, 4.0, 2.0])) % 6
    colour = ((wheel - 3).abs() - 1).clamp(0, 1).mul(255).round().to(torch.uint8)
    return colour if channels == 3 else torch.full((channels,), 255, dtype=torch.uint8)


def _share(hits: Tensor) -> float:
    return float(hits.float().mean())


def _number(key: Key, name: str) -> int:
    value = key.values[name]
    return int(value)
