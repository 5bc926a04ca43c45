"""Square attack: random search with square windows, which never asks for a gradient.

Andriushchenko, Croce, Flammarion & Hein, "Square Attack: a query-efficient black-box adversarial
attack via random search", ECCV 2020, https://arxiv.org/abs/1912.00049 (algorithms 1 to 3)

Each query proposes new values in one window of the image and keeps them if the margin shrinks.
In l-infinity the window becomes x ± eps, a sign for each channel. In l2 a bump of two opposite
pyramids is added there, paid for with the perturbation removed from a second window. Unlike the
authors' code, which moves one window over the whole batch, each example has its own.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from defenses.attacks.draws import numbering, uniform
from defenses.attacks.inference import frozen
from defenses.attacks.losses import negative_margin
from defenses.attacks.threat import lengths
from defenses.spec import Norm, require, require_choice

LARGEST = 0.8  # p: share of the image that the first windows cover
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which p is halved
SCHEDULED = 10_000  # queries that HALVINGS was made for
TILES = 5  # the l2 attack begins with TILES x TILES bumps
TINY = 1e-12


def square(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: Norm = "linf",
    queries: int = 5000,
    rescale: bool = True,
    seed: int = 0,
    indices: Tensor | None = None,
) -> Tensor:
    """Adversarial images: for each example the first misclassified proposal, else the best one.

    ``x`` are images ``(N, C, H, W)`` in [0, 1], ``y`` their true labels. Best means the largest
    max_{j != y} z_j - z_y. An example is done when it is broken or after 1 + ``queries``
    forward passes. With ``rescale`` the windows shrink over ``queries`` as they would over
    10,000; without, as in AutoAttack, the schedule stops where the queries end. The random
    numbers of example k depend on ``seed`` and ``indices[k]`` (default: k) alone. The model's
    state is left as it was. Images that are misclassified already come back unchanged.
    """
    require(eps >= 0, f"eps={eps} must be at least 0")
    require(queries >= 1, f"queries={queries} must be at least 1")
    require_choice("norm", norm, ("linf", "l2"))
    propose = _propose_linf if norm == "linf" else _propose_l2
    begin = _stripes if norm == "linf" else _tiles
    x = x.detach()
    x_adv = x.clone()
    indices = numbering(x, indices)
    with frozen(model), torch.no_grad():
        rows = (model(x).argmax(dim=1) == y).nonzero().squeeze(1)
        if len(rows) == 0:
            return x_adv
        channels = x.shape[1]
        draws = uniform(seed, f"square {norm}", indices[rows], (queries, 5 + channels))
        x_live, y_live = x[rows], y[rows]
        best = begin(x_live, eps, seed, indices[rows])
        logits = model(best)
        margin, broken = negative_margin(logits, y_live), logits.argmax(dim=1) != y_live
        for query in range(queries):
            if broken.any():
                x_adv[rows[broken]] = best[broken]
                live = ~broken
                rows, x_live, y_live = rows[live], x_live[live], y_live[live]
                best, margin, draws = best[live], margin[live], draws[live]
            if len(rows) == 0:
                break
            position = int(query * SCHEDULED / queries) if rescale else query
            proposal = propose(x_live, best, eps, covered(position), draws[:, query])
            logits = model(proposal)
            proposed, broken = negative_margin(logits, y_live), logits.argmax(dim=1) != y_live
            better = broken | (proposed > margin)
            best = torch.where(better.view(-1, 1, 1, 1), proposal, best)
            margin = torch.where(better, proposed, margin)
        x_adv[rows] = best
    return x_adv


def covered(query: int) -> float:
    """Share of the image that the window of this query covers."""
    return LARGEST * 0.5 ** bisect_left(HALVINGS, query)


def _stripes(x: Tensor, eps: float, seed: int, indices: Tensor) -> Tensor:
    """Vertical stripes of ± eps, one pixel wide."""
    signs = _signs(uniform(seed, "square stripes", indices, (x.shape[1], 1, x.shape[3])))
    return (x + eps * signs.to(x.dtype)).clamp(0, 1)


def _propose_linf(x: Tensor, best: Tensor, eps: float, share: float, draws: Tensor) -> Tensor:
    """``best`` with x ± eps in one window: what a change of ± 2 eps, clamped to the ball, gives."""
    height, width = x.shape[2:]
    side = min(max(round(math.sqrt(share * height * width)), 1), height, width)
    window = _Windows.at(draws[:, 0:2], side, x)
    signs = _signs(draws[:, 5:, None]).to(x.dtype)
    return window.write(best, (window.read(x) + eps * signs).clamp(0, 1))


def _tiles(x: Tensor, eps: float, seed: int, indices: Tensor) -> Tensor:
    """A grid of bumps in the middle of the image, each its own way up, of length eps together."""
    channels, height, width = x.shape[1:]
    side = max(min(height, width) // TILES, 1)
    down, across = height // side, width // side
    signs = _signs(uniform(seed, "square tiles", indices, (channels, down, across)))
    turned = uniform(seed, "square turns", indices, (down, across)) < 0.5
    tiles = _bump(side, turned.flatten(), x).view(len(x), down, across, side, side)
    grid = torch.einsum("ncij,nijkl->ncikjl", signs.to(x.dtype), tiles)
    delta = torch.zeros_like(x)
    top, left = (height - down * side) // 2, (width - across * side) // 2
    delta[:, :, top : top + down * side, left : left + across * side] = grid.reshape(
        len(x), channels, down * side, across * side
    )
    return (x + eps / lengths(delta).clamp_min(TINY) * delta).clamp(0, 1)


def _propose_l2(x: Tensor, best: Tensor, eps: float, share: float, draws: Tensor) -> Tensor:
    """``best`` with a bump added in one window, for the length that a second window gives up."""
    height, width = x.shape[2:]
    side = max(round(math.sqrt(share * height * width)), 3)
    side = min(side + 1 - side % 2, height, width)
    grows, gives = _Windows.at(draws[:, 0:2], side, x), _Windows.at(draws[:, 2:4], side, x)
    delta = best - x
    unspent = (eps**2 - lengths(delta).square()).clamp_min(0)[:, :, 0] / x.shape[1]

    kept = gives.write(delta, torch.zeros_like(gives.read(delta)))
    old = grows.read(delta)
    rest = grows.write(kept, torch.zeros_like(old))
    freed = (delta.square() - rest.square()).flatten(2).sum(dim=2, keepdim=True)
    bump = _bump(side, draws[:, 4] < 0.5, x).flatten(1)[:, None]
    new = bump * _signs(draws[:, 5:, None]).to(x.dtype) + _unit(old)
    delta = grows.write(kept, _unit(new) * (unspent + freed).clamp_min(0).sqrt())
    return (x + eps / lengths(delta).clamp_min(TINY) * delta).clamp(0, 1)


@dataclass(frozen=True)
class _Windows:
    """One square window in each image; its values are ``(N, C, side * side)``."""

    cells: Tensor  # (N, side * side), positions in the flattened image

    @staticmethod
    def at(corner: Tensor, side: int, x: Tensor) -> _Windows:
        """Windows whose corners ``(N, 2)``, in [0, 1), are spread over all that fit in ``x``."""
        height, width = x.shape[2:]
        room = corner.new_tensor([height - side + 1, width - side + 1])
        top, left = (corner * room).long().unbind(dim=1)
        along = torch.arange(side, device=x.device)
        rows, columns = top[:, None] + along, left[:, None] + along
        return _Windows((rows[:, :, None] * width + columns[:, None, :]).flatten(1))

    def read(self, image: Tensor) -> Tensor:
        return image.flatten(2).gather(2, self._in(image))

    def write(self, image: Tensor, values: Tensor) -> Tensor:
        """A copy of ``image`` with ``values`` in the window."""
        return image.flatten(2).scatter(2, self._in(image), values).view_as(image)

    def _in(self, image: Tensor) -> Tensor:
        return self.cells[:, None].expand(-1, image.shape[1], -1)


def _bump(side: int, turned: Tensor, x: Tensor) -> Tensor:
    """``(N, side, side)``: the bump of this size, transposed where ``turned``."""
    upright = _upright_bump(side).to(x)
    return torch.where(turned[:, None, None], upright.T, upright)


@lru_cache(maxsize=256)
def _upright_bump(side: int) -> Tensor:
    """Two pyramids of opposite sign, one above the other, of length 1 together (eq. 2)."""
    halves = [_pyramid(side // 2, side), -_pyramid(side - side // 2, side)]
    bump = torch.cat([half / _length(half).clamp_min(TINY) for half in halves])
    return bump / _length(bump)


def _pyramid(height: int, width: int) -> Tensor:
    """Sum over k >= d of 1 / (k + 1)^2, d the chessboard distance from the middle."""
    rows = (torch.arange(height) - height // 2).abs()
    columns = (torch.arange(width) - width // 2).abs()
    distance = torch.maximum(rows[:, None], columns[None, :])
    levels = max(height // 2, width // 2) + 1
    terms = 1 / torch.arange(1, levels + 1, dtype=torch.float64) ** 2
    return terms.flip(0).cumsum(0).flip(0)[distance].float()


def _unit(values: Tensor) -> Tensor:
    """Each channel's values ``(N, C, n)``, scaled to length 1."""
    squares: Tensor = values.square().sum(dim=2, keepdim=True)
    return values / squares.sqrt().clamp_min(TINY)


def _length(matrix: Tensor) -> Tensor:
    return matrix.square().sum().sqrt()


def _signs(draws: Tensor) -> Tensor:
    """-1 or 1 for numbers in [0, 1)."""
    return torch.where(draws < 0.5, -1.0, 1.0)
