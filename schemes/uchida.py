"""Embedding Watermarks into Deep Neural Networks: bits in the mean filter of a convolution (white box).

Yusuke Uchida, Yuki Nagai, Shigeyuki Sakazawa, Shin'ichi Satoh, ICMR 2017. https://arxiv.org/abs/1701.04082
Authors' implementation: https://github.com/yu4u/dnn-watermark (Keras)

Where ours differs, and why:

* The payload is uniformly random, theirs is all ones: with a constant payload the error count of an unmarked model
  need not be Binomial(T, 1/2), and a zeroed layer reads as the owner's.
* A projection of exactly 0 is an erasure; the paper reads a 1, their code a 0. It counts as half an error.
* The p-value is two-sided, since subtracting a multiple of the mean filter inverts every bit.
* Weight decay spares the embedded tensor by default: their code has none, though the paper says 5e-4 (`decay=true`).
* The loss takes logits, in float32 whatever the precision of training; theirs clips probabilities at 1e-7.
* The mean filter is flattened as I x kH x kW, theirs as kH x kW x I: keys cannot be exchanged.
* Post-hoc (Eq. 6): the loss is the mean over bits, which is what their Table 7 fits; how w is written back is not
  said, we add its change to every filter, which is the smallest change of weights that gives it.
* An error-correcting code is ours (`code=bch`): the message is drawn, and the payload is its word, masked by random
  bits. So the payload stays uniformly random, whatever the code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import (
    Batch,
    Capacity,
    Field,
    Host,
    Key,
    Params,
    Rng,
    Scheme,
    SchemeCard,
    Suspect,
    Variant,
    Verdict,
    bits_p_value,
    papers,
    replace,
)
from schemes._bch import Code

_CARD = SchemeCard(
    name="uchida-random",
    title="Uchida et al., Gaussian key",
    paper=papers.UCHIDA,
    carrier="weights",
    access="white-box",
    payload="multi-bit",
    stand_alone=True,
    extensions=(
        "uniformly random payload instead of all ones",
        "two-sided binomial p-value; a projection of exactly 0 is an erasure",
        "an error-correcting code by choice (code=bch)",
    ),
    payload_parameter="bits",
    layer_parameter="layer",
    # So few steps embed nothing at the paper's weight of the loss.
    scales={"smoke": {"bits": 32, "strength": 0.1}, "quick": {"bits": 64}},
    tiny={"bits": 16, "strength": 0.1},
)
# One or two entries a bit: so short a training needs a larger weight still.
_STRONG: dict[str, Any] = {
    "scales": {"smoke": {"bits": 32, "strength": 1.0}, "quick": {"bits": 64, "strength": 0.1}},
    "tiny": {"bits": 16, "strength": 1.0},
}


@dataclass(frozen=True)
class UchidaKey(Key):
    """The owner's secrets.

    Attributes:
        projection: X, T x M float32.
        payload: T, uint8.
        layer: path of the layer that carries the mark.
        message: k, uint8, of which the payload is the masked word; None where no code is used.
    """

    projection: Tensor
    payload: Tensor
    layer: str
    message: Tensor | None = None
    public = ("layer",)


class KeyParams(Params):
    """What every key of this family has."""

    bits: int = Field(256, ge=1, le=100_000, description="payload length T")
    key: Literal["random", "direct", "diff"] = Field("random", description="kind of the projection (section 3.3)")
    layer: str = Field("conv2", description="layer group that carries the mark: conv2, conv3 or conv4")
    code: Literal["none", "bch"] = Field("none", description="code of the message that the payload stands for")
    redundancy: float = Field(0.5, gt=0, lt=1, description="share of the payload that is the code's parity, at most")


class RegulariserParams(KeyParams):
    """Embedding while training (Eq. 1 and 4; section 4.1)."""

    strength: float = Field(0.01, ge=0, description="lambda, weight of the embedding loss summed over the bits")
    decay: bool = Field(False, description="let weight decay act on the embedded tensor too")


class PosthocParams(KeyParams):
    """Embedding without training (Eq. 6)."""

    strength: float = Field(10.0, ge=0, description="lambda, weight of the embedding loss averaged over the bits")


def mean_filter(model: nn.Module, layer: str) -> Tensor:
    """The mean w over the filters (dim 0 of O x I x kH x kW) of the layer called `layer`: M, float32.

    Raises:
        AttributeError: the model has no such layer, or the layer has no weight.
    """
    weight = model.get_submodule(layer).weight
    if not isinstance(weight, Tensor):
        raise AttributeError(f"Expected {layer!r} to have a weight tensor, but got {type(weight).__name__}.")
    return weight.float().mean(0).flatten()


def read(model: nn.Module, key: UchidaKey) -> Tensor | None:
    """The projections y = X w, T float64 on the CPU; None if the layer is gone or no longer fits the key.

    What is not finite carries no bit: it reads as 0, an erasure.
    """
    projection = key.projection
    try:
        w = mean_filter(model, key.layer).detach()
    except AttributeError:
        return None
    if len(w) != projection.shape[1]:
        return None
    y = projection.cpu().double() @ w.cpu().double()
    return y.nan_to_num(0.0, 0.0, 0.0).clamp(-1e29, 1e29)


def solve(w0: np.ndarray, projection: np.ndarray, payload: np.ndarray, strength: float) -> np.ndarray:
    """The w that minimises ||w - w0||^2 / 2 + strength * mean BCE(X w, b) (Eq. 6), by L-BFGS in float64."""
    from scipy.optimize import minimize
    from scipy.special import expit

    def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
        y = projection @ w
        loss = np.mean(np.logaddexp(0.0, y) - payload * y)
        gradient = projection.T @ (expit(y) - payload) / len(y)
        return float(np.sum((w - w0) ** 2) / 2 + strength * loss), w - w0 + strength * gradient

    limits = {"maxiter": 5000, "maxfun": 10_000, "ftol": 1e-14, "gtol": 1e-8}
    return minimize(objective, w0, jac=True, method="L-BFGS-B", options=limits).x


def entries(kind: str) -> int:
    """Weights of the mean filter that one bit takes for itself; 0 where every bit is spread over all."""
    return {"random": 0, "direct": 1, "diff": 2}[kind]


class _Uchida(Scheme[UchidaKey]):
    """Key, verification and capacity; how the mark gets into the weights is left to the subclasses."""

    key_type = UchidaKey

    @property
    def code(self) -> Code | None:
        """How messages stand in a payload of T bits; None where every bit speaks for itself."""
        return None if self.params.code == "none" else Code(self.params.bits, self.params.redundancy)

    def rows(self, dimension: int, generator: torch.Generator) -> Tensor:
        """The projection X, T x M float32, one row a bit (section 3.3).

        `random`: every element from N(0, 1), and T may exceed M. `direct`: one 1 a row; `diff`: one +1 and one -1 a
        row; no two entries in a column.

        Raises:
            ValueError: the mean filter has too few weights for so many bits.
        """
        bits, taken = self.params.bits, entries(self.params.key)
        if not taken:
            return torch.randn(bits, dimension, generator=generator)
        if bits > (most := dimension // taken):
            raise ValueError(
                f"Expected at most {most} bits for a mean filter of {dimension} weights, but got {bits}: lower "
                f"--set {self.card.name}.bits={most} or choose a wider layer with --set {self.card.name}.layer=conv4."
            )
        places = torch.randperm(dimension, generator=generator)[: bits * taken].view(bits, taken)
        signs = torch.tensor([1.0, -1.0][:taken]).expand(bits, taken)
        return torch.zeros(bits, dimension).scatter_(1, places, signs)

    def keygen(self, host: Host, rng: Rng) -> UchidaKey:
        """Draw projection, payload and message from streams of their own, the latter two uniformly."""
        layer = host.layer(self.params.layer)
        projection = self.rows(len(mean_filter(host.model(), layer)), rng.torch("projection"))
        payload = torch.randint(2, (self.params.bits,), dtype=torch.uint8, generator=rng.torch("payload"))
        message = None
        if self.code is not None:
            message = torch.randint(2, (self.code.k,), dtype=torch.uint8, generator=rng.torch("message"))
        return UchidaKey(projection, payload, layer, message).to(host.device)

    def verify(self, suspect: Suspect, key: UchidaKey) -> Verdict:
        """Read the bits (Eq. 2 and 3): 1 if the projection is above 0, 0 below, `?` where it is exactly 0.

        The statistic is |1 - 2 BER|: 1 if all bits are right or all are inverted, 0 at chance. With a code, `ber` and
        `payload` are the message's, and its p-value and statistic are still of the T payload bits: these are uniformly
        random by their mask, so the errors are binomial, and a decoder that corrects t errors tells apart only whether
        there were more than t of them, which is less than their number tells.
        """
        y = read(suspect.model, key)
        if y is None:
            return Verdict(statistic=0.0, p_value=1.0, ber=0.5, details={"unreadable": True})
        bits = key.payload.cpu().double()
        margins = (2 * bits - 1) * y
        erased, errors = int((y == 0).sum()), int((margins < 0).sum())
        ber = (errors + erased / 2) / len(bits)
        found = Verdict(
            statistic=abs(1 - 2 * ber),
            p_value=bits_p_value(errors, len(bits) - erased),
            ber=ber,
            payload="".join("0?1"[int(sign) + 1] for sign in y.sign().tolist()),
            details={
                "embedding_loss": F.binary_cross_entropy_with_logits(y, bits).item(),
                "margin_mean": margins.mean().item(),
                "erased_bits": erased,
            },
        )
        return found if self.code is None or key.message is None else decoded(found, self.code, key.message, margins)

    def capacity(self, host: Host) -> Capacity:
        """T bits, or those of the message; of at most 2 M for a mean filter of M weights (Cover 1965).

        With the keys `direct` and `diff` more than M and M / 2 payload bits have no place.
        """
        dimension = len(mean_filter(host.model(), host.layer(self.params.layer)))
        taken = entries(self.params.key)
        most = dimension // taken if taken else None
        bits = self.params.bits if self.code is None else self.code.k
        return Capacity(bits, limit=2 * dimension if most is None else most, most=most)


def decoded(raw: Verdict, code: Code, message: Tensor, margins: Tensor) -> Verdict:
    """The verdict with the message that the payload decodes to.

    A block that cannot be decoded carries no message: its bits read `?`, half an error each.

    Args:
        raw: of the payload bits.
        code: of the key.
        message: the owner's, k.
        margins: T projections, above 0 where the bit is the owner's, 0 where it is erased.
    """
    truth = message.cpu().numpy()
    # What was read, without the mask: the owner's word, wrong where the payload is.
    word = code.encode(truth) ^ (margins < 0).numpy().astype(np.uint8)
    blocks = code.decode(word, (margins == 0).numpy())
    sizes = [block.k for block in code.blocks]
    read = np.concatenate([np.full(k, 2) if part is None else part for part, k in zip(blocks, sizes, strict=True)])
    undecoded = sum(part is None for part in blocks)
    return raw.model_copy(
        update={
            "ber": float(np.mean(np.where(read == 2, 0.5, read != truth))),
            "payload": "".join("01?"[bit] for bit in read),
            "details": {**raw.details, "raw_ber": raw.ber, "blocks": len(blocks), "undecoded": undecoded},
        }
    )


class UchidaRandom(_Uchida):
    """Embedding by a parameter regulariser while the network is trained (section 3.2)."""

    card = _CARD
    Params: ClassVar[type[KeyParams]] = RegulariserParams
    variants = (
        Variant("uchida-direct", "Uchida et al., direct key", {"key": "direct"}, _STRONG),
        Variant("uchida-diff", "Uchida et al., diff key", {"key": "diff"}, _STRONG),
    )

    def embedding_loss(self, model: nn.Module, key: UchidaKey, batch: Batch) -> Tensor:
        """Eq. 1 and 4: lambda times the SUM over bits of the cross-entropy of sigmoid(X w)."""
        w = mean_filter(model, key.layer)
        projection, payload = key.projection.to(w.device), key.payload.to(w.device)
        # A bfloat16 product is coarser than the margins that the mark lives on.
        with torch.autocast(w.device.type, enabled=False):
            loss = F.binary_cross_entropy_with_logits(projection @ w, payload.float(), reduction="sum")
        return self.params.strength * loss

    def undecayed(self, key: UchidaKey) -> tuple[str, ...]:
        """The embedded tensor, unless `decay` is set."""
        return () if self.params.decay else (f"{key.layer}.weight",)


class UchidaPosthoc(_Uchida):
    """Embedding into a trained network without training it: the paper's counterexample (Eq. 6, Table 7)."""

    card = replace(
        _CARD,
        name="uchida-posthoc",
        title="Uchida et al., without training",
        situations=("post-hoc",),
        extensions=(
            *_CARD.extensions,
            "the change of the mean filter is added to every filter (minimum norm); the paper does not say how",
            "lambda 10 by default: the smallest that the paper reports with BER 0",
        ),
        scales={"smoke": {"bits": 32}, "quick": {"bits": 64}},
        tiny={"bits": 16},
    )
    Params = PosthocParams

    def mark_model(self, model: nn.Module, key: UchidaKey, host: Host) -> nn.Module:
        """Move the mean filter to the minimiser of Eq. 6, in place."""
        projection, payload = (tensor.cpu().double().numpy() for tensor in (key.projection, key.payload))
        w0 = mean_filter(model, key.layer).detach().cpu().double().numpy()
        change = torch.from_numpy(solve(w0, projection, payload, self.params.strength) - w0)
        weight = model.get_parameter(f"{key.layer}.weight").detach()
        weight.add_(change.view(weight.shape[1:]).to(weight))
        return model
