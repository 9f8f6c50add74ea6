"""What does a number mean? A profile fixes data sizes, widths, recipes and seeds; records never mix profiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from bench.api import Recipe

__all__ = ["PROFILES", "Profile"]


@dataclass(frozen=True)
class Profile:
    """One scale of experiment.

    Attributes:
        ranked: whether its results may be ranked on the leaderboard.
        archs, dataset, situation, seeds: what is run when the command line does not say.
        owner, adversary, heldout: images of each part of the split; None for the data set's own division.
        all_unseen: measure accuracy on all unseen images, too, where few networks are judged.
        widths: width multiplier per architecture; 1 where it is missing.
        host: recipe of the clean host per architecture (`*`: the others); used by situation `train` too.
        embed: recipe of fine-tuning and distilling while embedding.
        learner: recipe of somebody who trains on what others published (marks carried by data, and membership),
            long enough to memorise a share of it; `host` where it is empty.
        learner_widths: width multipliers of that learner's networks; those of `widths` where they are missing.
        learner_images: how many images that learner trains on; None for as many as the owner has.
        null_keys: fresh keys that claim each clean host.
        attacked_null_keys: fresh keys that claim the clean host after an attack, at `null_rungs` rungs; 0 for none.
        trained_null_keys: fresh keys of schemes whose key generation trains networks.
        null_hosts: null models of each kind, trained for fresh keys to claim; 0 for none.
        left_out_owners: owners who claim a network that was trained without their images, where owners have a share.
        heldout_users: users whose images nobody was trained on, examined on every model that others' images marked.
    """

    name: str
    title: str
    ranked: bool
    archs: tuple[str, ...]
    dataset: str
    situation: str
    seeds: int
    owner: int | None
    adversary: int | None
    heldout: int | None
    host: Mapping[str, Recipe]
    embed: Mapping[str, Recipe]
    widths: Mapping[str, float] = field(default_factory=dict)
    learner: Mapping[str, Recipe] = field(default_factory=dict)
    learner_widths: Mapping[str, float] = field(default_factory=dict)
    learner_images: int | None = None
    null_keys: int = 100
    attacked_null_keys: int = 20
    trained_null_keys: int = 2
    null_rungs: int = 4
    null_hosts: int = 0
    heldout_users: int = 10
    left_out_owners: int = 10
    all_unseen: bool = True

    def recipe(self, phase: str, arch: str) -> Recipe:
        """The recipe of a phase (`host`, `embed` or `learner`); `wrn-16-2` takes that of `wrn`."""
        table = {"host": self.host, "embed": self.embed, "learner": self.learner or self.host}[phase]
        return table.get(arch) or table.get(arch.split("-")[0]) or table["*"]

    def width(self, arch: str, *, learner: bool = False) -> float:
        """The width multiplier of an architecture."""
        widths = {**self.widths, **self.learner_widths} if learner else self.widths
        return widths.get(arch, 1.0)


def _steps(lr: float, batch_size: int, epochs: int, every: int, gamma: float) -> Recipe:
    """SGD whose learning rate is multiplied by `gamma` every so many epochs, as DeepStamp's code trains."""
    milestones = tuple(epoch / epochs for epoch in range(every, epochs, every))
    return Recipe(epochs, lr, batch_size, nesterov=False, schedule="step", milestones=milestones, gamma=gamma)


SMOKE = Profile(
    name="smoke",
    title="Does it run? Seconds on one core",
    ranked=False,
    archs=("wrn",),
    dataset="digits-m",
    situation="fine-tune",
    seeds=1,
    owner=600,
    adversary=200,
    heldout=200,
    host={"*": Recipe(5, 0.05, 32), "alexnet": Recipe(5, 0.001, 32, "adam")},
    embed={"*": Recipe(2, 0.05, 32), "alexnet": Recipe(2, 0.001, 32, "adam")},
    heldout_users=2,
    left_out_owners=2,
    widths={"wrn": 0.125, "resnet18": 0.125, "densenet": 0.34, "vgg16": 0.125, "resnet50": 0.0625, "alexnet": 0.25},
    null_keys=20,
    attacked_null_keys=5,
)

QUICK = Profile(
    name="quick",
    title="A demonstration: minutes on two cores, narrow networks, the embedded digits",
    ranked=False,
    archs=("wrn",),
    dataset="digits-m",
    situation="fine-tune",
    seeds=1,
    owner=None,
    adversary=None,
    heldout=None,
    host={
        "*": Recipe(30, 0.05, 64),
        "alexnet": Recipe(40, 0.001, 64, "adam"),
    },
    embed={
        "*": Recipe(8, 0.05, 64),
        "alexnet": Recipe(12, 0.001, 64, "adam"),
    },
    widths={"wrn": 0.25, "vgg16": 0.25, "resnet50": 0.125, "resnet18": 0.25, "densenet": 0.5, "alexnet": 0.5},
    # A learner who sees few images for many epochs remembers them, as one of a large data set does in the papers.
    learner={"*": Recipe(16, 0.05, 32, augment=()), "alexnet": Recipe(36, 0.001, 64, "adam", augment=())},
    learner_widths={"wrn": 0.125, "vgg16": 0.125, "resnet50": 0.0625, "resnet18": 0.125, "alexnet": 0.25},
    null_keys=25,
    # Each attack would be repeated on the clean host, for as few keys as tell nothing of an error rate.
    attacked_null_keys=0,
    trained_null_keys=1,
    heldout_users=3,
    left_out_owners=2,
)

SMALL = Profile(
    name="small",
    title="An eighth of CIFAR-10 and the full network, on a CPU; half of that and narrow networks for learners",
    ranked=True,
    archs=("wrn",),
    dataset="cifar10",
    situation="fine-tune",
    seeds=1,
    owner=6_000,
    adversary=3_000,
    heldout=1_000,
    host={"*": Recipe(10, 0.1, 64), "alexnet": Recipe(20, 0.001, 64, "adam")},
    embed={"*": Recipe(3, 0.1, 64), "alexnet": Recipe(5, 0.001, 64, "adam")},
    # Crop and flip so that networks know an image by more than its pixels; few images and many epochs so that they know
    # each; Adam, because SGD at its usual rates generalises where it should memorise (docs/replications.md).
    learner={
        "*": Recipe(90, 0.002, 64, "adam"),
        "vgg16": Recipe(60, 0.001, 64, "adam"),
        "alexnet": Recipe(120, 0.001, 64, "adam"),
    },
    learner_images=3_000,
    learner_widths={
        "wrn": 0.25,
        "vgg16": 0.25,
        "resnet50": 0.125,
        "resnet18": 0.25,
        "densenet": 0.5,
        "alexnet": 0.5,
    },
    null_keys=50,
    attacked_null_keys=10,
    trained_null_keys=1,
)

# What the Watermark-Robustness-Toolbox's networks and their first attacks take: `docs/performance.md` has the command.
CHAIN = Profile(
    name="chain",
    title="One epoch each on 5,000 images of CIFAR-10: how long a chain of attacks takes",
    ranked=False,
    archs=("wrn-16-6",),
    dataset="cifar10",
    situation="train",
    seeds=1,
    owner=5_000,
    adversary=5_000,
    heldout=500,
    all_unseen=False,
    host={"*": Recipe(1, 0.02, 64), "alexnet": Recipe(1, 0.001, 64, "adam")},
    embed={"*": Recipe(1, 0.02, 64), "alexnet": Recipe(1, 0.001, 64, "adam")},
    null_keys=20,
    attacked_null_keys=0,
)

STANDARD = Profile(
    name="standard",
    title="The full data set, a modern schedule, one GPU",
    ranked=True,
    archs=("wrn", "alexnet", "vgg16", "resnet50"),
    dataset="cifar10",
    situation="train",
    seeds=5,
    owner=None,
    adversary=None,
    heldout=None,
    host={"*": Recipe(30, 0.1), "wrn": Recipe(30, 0.2), "alexnet": Recipe(30, 0.001, optimizer="adam")},
    embed={"*": Recipe(10, 0.1), "wrn": Recipe(10, 0.2), "alexnet": Recipe(10, 0.001, optimizer="adam")},
    null_hosts=2,
)

# Zou et al. 2022, section 5.1, and their code for the batch size.
_ANW = _steps(0.1, 256, 90, every=30, gamma=0.1)
# Uchida et al. 2017, section 4.1. Embedding by fine-tuning is a second full training (their footnote 5). The epoch of
# warm-up is ours: at their learning rate the network of their table 3 diverges in its first steps.
_UCHIDA = Recipe(200, 0.1, 64, schedule="step", milestones=(0.3, 0.6, 0.8), gamma=0.2, warmup=1.0)
# Hong et al. 2019, the authors' code for clean images; on marked ones they chose `gamma` for each case.
_DEEPSTAMP = {
    "alexnet": _steps(0.01, 128, 300, every=10, gamma=0.95),
    "vgg16": _steps(0.1, 128, 300, every=100, gamma=0.1),
    "resnet50": _steps(0.1, 128, 300, every=100, gamma=0.1),
}

PAPER = Profile(
    name="paper",
    title="The papers' own hyper-parameters",
    ranked=True,
    archs=("wrn", "alexnet", "vgg16", "resnet50"),
    dataset="cifar10",
    situation="train",
    seeds=5,
    owner=50_000,
    adversary=None,
    heldout=None,
    host={"*": _UCHIDA, "wrn": _UCHIDA, **_DEEPSTAMP},
    embed={"*": _UCHIDA, "wrn": _UCHIDA, **_DEEPSTAMP},
    learner={
        "*": _ANW,
        "wrn": replace(_ANW, warmup=1.0),  # they trained none
        **{name: _DEEPSTAMP[name] for name in ("alexnet", "vgg16")},
    },
    null_hosts=2,
)

PROFILES: dict[str, Profile] = {profile.name: profile for profile in (SMOKE, QUICK, SMALL, STANDARD, PAPER, CHAIN)}
