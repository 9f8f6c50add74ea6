"""WIP"""
from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from bench.api import (
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
    pixels,
    rank_p_value,
)
from schemes._glyphs import LETTERS, letter_m_bank, poses, text_mask, written_one_bank

SOURCES = 20
CHUNK = 16
Pattern = Mapping[str, Tensor]
PAPER = Paper(
    "Protecting Intellectual Property of Deep Neural Networks with Watermarking",
    "Zhang, Gu, Jang, Wu, Stoecklin, Huang, Molloy",
    2018,
    "https://doi.org/10.1145/3196494.3196550",
)


class Pool(NamedTuple):
    images: Tensor
    labels: Tensor


class Secret(NamedTuple):
    row: int
    target: int
    pattern: Pattern


class TriggerSet(Scheme):
    class Params(Params):
        fraction: float = Field(0.1, gt=0, le=1)
        probe: int = Field(32, ge=1)
        repeat: int = Field(1, ge=1)
        exact: bool = True
        decoys: int = Field(199, ge=1)

    @abstractmethod
    def pattern(self, shape, generator): ...
    @abstractmethod
    def stamp(self, images, pattern, generator): ...

    def keygen(self, host, rng):
        pool, taken = self._pool(host)
        classes = len(host.dataset.classes)
        secret = self._draw(pool, classes, rng.torch("secret"))
        label = int(pool.labels[secret.row])
        stamping = rng.torch("stamp")
        members = (host.images.labels == label).sum() if label >= 0 else len(host.images) / classes
        count = max(0, round(self.params.fraction * float(members)) - pool.images.shape[1])
        more = self._sources(host.images, label, count, rng.torch("more"), taken)
        fresh = self._sources(host.heldout, label, 100, rng.torch("fresh"), None)
        tensors = {
            "triggers": self.stamp(torch.cat([pool.images[secret.row], more]), secret.pattern, stamping),
            "fresh": self.stamp(fresh, secret.pattern, rng.torch("fresh stamp")),
            "pool": pool.images, "pool_labels": pool.labels, **secret.pattern,
        }
        return Key(tensors, {"source": label, "target": secret.target, "classes": classes})

    def mark_data(self, images, key):
        t = key.tensors["triggers"].repeat(self.params.repeat, 1, 1, 1)
        labels = torch.full((len(t),), int(key.values["target"]))
        return images.extend(t, labels, exact=self.params.exact)

    def _pool(self, host):
        labels = host.images.labels.cpu()
        order = torch.randperm(len(labels), generator=Rng("zhang-pool", host.dataset.name).torch())
        counts = labels.bincount(minlength=len(host.dataset.classes))
        n = min(self.params.probe, int(counts.max()))
        kept = (counts >= n).nonzero().flatten()[:SOURCES]
        rows = torch.stack([order[labels[order] == c][:n] for c in kept])
        return Pool(host.images.images[rows.to(host.images.images.device)], kept), rows

    def _sources(self, images, label, count, generator, taken):
        rows = (images.labels.cpu() == label).nonzero().flatten()
        if taken is not None:
            rows = rows[~torch.isin(rows, taken)]
        rows = rows[torch.randperm(len(rows), generator=generator)][:count]
        return images.images[rows.to(images.images.device)]

    def _draw(self, pool, classes, generator):
        row = int(torch.randint(len(pool.labels), (1,), generator=generator))
        source = int(pool.labels[row])
        target = int(torch.randint(classes - (source >= 0), (1,), generator=generator))
        target += int(0 <= source <= target)
        return Secret(row, target, self.pattern(tuple(pool.images.shape[2:]), generator))


    def verify(self, suspect, key):
        return Verdict(statistic=0,p_value=1)

    def decoy_stats(self, model_labels, key):
        pool=Pool(key.tensors["pool"],key.tensors["pool_labels"]); classes=key.values["classes"]
        clean=model_labels(pool.images.flatten(0,1)).view(pool.images.shape[:2])
        out=[]
        for i in range(self.params.decoys):
            r=Rng("decoy",i); sec=self._draw(pool,classes,r.torch("secret"))
            t=self.stamp(pool.images[sec.row],sec.pattern,r.torch("stamp"))
            a=model_labels(t)
            out.append(((a==sec.target).float().mean().item(),(clean[sec.row]==sec.target).float().mean().item(),sec.target, int(pool.labels[sec.row])))
        return out


def _saturated(channels, generator):
    if channels == 1:
        return torch.tensor([255])
    hue = 6 * torch.rand(1, generator=generator)
    wheel = (hue + torch.tensor([0.0, 4.0, 2.0])) % 6
    return ((wheel - 3).abs() - 1).clamp(0, 1).mul(255).round()


class Content(TriggerSet):
    card = SchemeCard("zhang-content", "t", PAPER, "behaviour", "labels", "zero-bit")

    def pattern(self, shape, generator):
        channels, height, width = shape
        text = "".join(list(LETTERS)[i] for i in torch.randint(26, (4,), generator=generator))
        dots = text_mask(text, height, width)
        y = int(torch.randint(height - dots.shape[0] + 1, (1,), generator=generator))
        x = int(torch.randint(width - dots.shape[1] + 1, (1,), generator=generator))
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[y : y + dots.shape[0], x : x + dots.shape[1]] = dots
        return {"mask": mask, "colour": _saturated(channels, generator).to(torch.uint8)}

    def stamp(self, images, pattern, generator):
        colour = pattern["colour"][:, None, None].to(images.device)
        return torch.where(pattern["mask"].to(images.device), colour, images)


class Unrelated(TriggerSet):
    card = SchemeCard("zhang-unrelated", "t", PAPER, "behaviour", "labels", "zero-bit")
    content="digits"
    def pattern(self, shape, generator):
        while True:
            ink, paper = torch.rand(2, shape[0], generator=generator)
            if (ink-paper).abs().mean()>.3: return {"ink": ink, "paper": paper}
    def stamp(self, images, pattern, generator):
        bank = letter_m_bank() if self.content=="digits" else written_one_bank()
        a = poses(bank, len(images), tuple(images.shape[2:]), generator)
        ink,paper=(pattern[k][:,None,None] for k in ("ink","paper"))
        return ((paper+(ink-paper)*a)*255).round().to(torch.uint8)
    def _pool(self, host):
        p,_=super()._pool(host)
        return Pool(torch.zeros_like(p.images[:1]), torch.tensor([-1])), None
    def _sources(self, images, label, count, generator, taken):
        return images.images.new_zeros(count, *images.images.shape[1:])


class Noise(TriggerSet):
    card = SchemeCard("zhang-noise", "t", PAPER, "behaviour", "labels", "zero-bit")
    class Params(TriggerSet.Params):
        kind: Literal["fixed","fresh"]="fixed"
        std: float=.25
        grain: int=1
        spread: float=0.
    def pattern(self, shape, generator):
        c,h,w=shape
        g=self.params.grain
        mean=self.params.spread*(2*torch.rand(c,1,1,generator=generator)-1)
        noise=torch.randn(c,-(-h//g),-(-w//g),generator=generator).repeat_interleave(g,1).repeat_interleave(g,2)[:,:h,:w]
        return {"noise":noise*self.params.std+mean,"mean":mean}
    def stamp(self, images, pattern, generator):
        if self.params.kind=="fixed": noise=pattern["noise"]
        else: noise=torch.randn(images.shape,generator=generator)*self.params.std+pattern["mean"]
        return ((images.float()/255+noise).clamp(0,1)*255).round().to(torch.uint8)
