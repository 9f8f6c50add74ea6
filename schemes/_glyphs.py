"""How are letters and handwritten signs drawn without a font file? Masks in [0, 1], for the trigger sets of `zhang`."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["LETTERS", "letter_m_bank", "poses", "text_mask", "written_one_bank"]

# Seven rows of five dots a letter; each row is one digit in base 32, its highest bit on the left.
LETTERS = {
    "A": "EHHVHHH",
    "B": "UHHUHHU",
    "C": "EHGGGHE",
    "D": "UHHHHHU",
    "E": "VGGUGGV",
    "F": "VGGUGGG",
    "G": "EHGNHHE",
    "H": "HHHVHHH",
    "I": "E44444E",
    "J": "72222IC",
    "K": "HIKOKIH",
    "L": "GGGGGGV",
    "M": "HRLLHHH",
    "N": "HPLLJHH",
    "O": "EHHHHHE",
    "P": "UHHUGGG",
    "Q": "EHHHLID",
    "R": "UHHUKIH",
    "S": "FGGE11U",
    "T": "V444444",
    "U": "HHHHHHE",
    "V": "HHHHHA4",
    "W": "HHHLLRH",
    "X": "HHA4AHH",
    "Y": "HHA4444",
    "Z": "V1248GV",
}
FONTS = 64
SIDE = 24


def text_mask(word: str, height: int, width: int) -> Tensor:
    """The dots of `word`, h x w bool: one pixel a dot per 32 pixels of width, fewer if they would not fit.

    Args:
        word: capital letters, A to Z.
        height: of the image that the word is to stand on.
        width: of the image.
    """
    rows = ["0".join(f"{int(LETTERS[letter][y], 32):05b}" for letter in word) for y in range(7)]
    dots = torch.tensor([[float(dot) for dot in row] for row in rows])
    scale = max(1, width // 32)
    size = min(height, 7 * scale), min(width, dots.shape[1] * scale)
    return F.interpolate(dots[None, None], size=size, mode="nearest")[0, 0] > 0


@cache
def written_one_bank() -> Tensor:
    """The 182 handwritten digits 1 that come with scikit-learn, 182 x 1 x 8 x 8, coverage in [0, 1]."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return torch.from_numpy(digits.images[digits.target == 1] / 16).float()[:, None]


@cache
def letter_m_bank() -> Tensor:
    """The letter m in 64 fonts drawn by a fixed generator, 64 x 1 x 24 x 24, coverage in [0, 1]."""
    generator = torch.Generator().manual_seed(109)
    return torch.stack([_letter_m(torch.rand(6, generator=generator)) for _ in range(FONTS)])[:, None]


def poses(bank: Tensor, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Signs drawn from `bank` with replacement, each turned, slanted, scaled and shifted: count x 1 x h x w."""
    if not count:  # `affine_grid` refuses none
        return bank.new_zeros(0, 1, *size)
    chosen = bank[torch.randint(len(bank), (count,), generator=generator)]
    turn, slant, zoom_x, zoom_y, right, down = (2 * torch.rand(6, count, generator=generator) - 1).unbind()
    cos, sin = torch.cos(0.3 * turn), torch.sin(0.3 * turn)
    zoom_x, zoom_y, slant = 1.1 + 0.15 * zoom_x, 1.1 + 0.15 * zoom_y, 0.2 * slant
    top = torch.stack([cos * zoom_x, (slant * cos - sin) * zoom_x, 0.15 * right], 1)
    bottom = torch.stack([sin * zoom_y, (slant * sin + cos) * zoom_y, 0.15 * down], 1)
    grid = F.affine_grid(torch.stack([top, bottom], 1), [count, 1, *size], align_corners=False)
    return F.grid_sample(chosen, grid, align_corners=False).clamp_(0, 1)


def _letter_m(font: Tensor) -> Tensor:
    """One m of 24 x 24 from six numbers in [0, 1]: width, height, roundness, thickness, slant, serifs."""
    width, height, roundness, thickness, slant, serif = font.tolist()
    half, tall, pen = 0.5 + 0.25 * width, 0.4 + 0.25 * height, 0.07 + 0.1 * thickness
    bend = (0.5 + 0.7 * roundness) * tall
    turn = torch.linspace(0, torch.pi, 9)
    strokes = [torch.tensor([[-half, -tall], [-half, tall]])]
    for left in (-half, 0.0):
        arch = torch.stack([left + half * (1 - torch.cos(turn)) / 2, -tall + bend * (1 - torch.sin(turn))], 1)
        strokes.append(torch.cat([arch, torch.tensor([[left + half, tall]])]))
    if serif > 0.5:
        strokes += [torch.tensor([[x - 0.15, tall], [x + 0.15, tall]]) for x in (-half, 0.0, half)]
    starts, ends = (torch.cat(parts) for parts in ([s[:-1] for s in strokes], [s[1:] for s in strokes]))
    lean = torch.tensor([[1.0, 0.0], [0.6 * slant - 0.2, 1.0]])
    return _inked(starts @ lean, ends @ lean, pen)


def _inked(starts: Tensor, ends: Tensor, pen: float) -> Tensor:
    """Coverage of a 24 x 24 page over [-1, 1]^2 by straight strokes (rows of x, y) with a round pen."""
    axis = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
    page = torch.stack([axis.expand(SIDE, SIDE), axis[:, None].expand(SIDE, SIDE)], -1)[:, :, None]
    along = ends - starts
    share = ((page - starts) * along).sum(-1) / along.square().sum(-1).clamp_min(1e-9)
    nearest = starts + share.clamp(0, 1)[..., None] * along
    distance = (page - nearest).square().sum(-1).sqrt().amin(-1)
    return ((pen - distance) * SIDE / 2 + 0.5).clamp(0, 1)
