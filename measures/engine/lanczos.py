"""Extreme eigenvalues of a symmetric operator known only by its products with vectors.

The Lanczos method is power iteration that remembers its path: it reaches the same eigenvalue
from the same products, in a fraction of the steps, and sees both ends of the spectrum.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def ritz_values(
    product: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    max_steps: int = 200,
    tolerance: float = 1e-4,
) -> Tensor:
    """Approximate eigenvalues, ascending: the last is the largest one, the first the smallest."""
    matrix = lanczos(product, start, max_steps=max_steps, tolerance=tolerance)
    values: Tensor = torch.linalg.eigvalsh(matrix)
    return values


def lanczos(
    product: Callable[[Tensor], Tensor], start: Tensor, *, max_steps: int, tolerance: float
) -> Tensor:
    """The tridiagonal matrix ``(k, k)``, float64, of a symmetric A on the space that k products
    reach from ``start``.

    ``product`` maps a tensor shaped like ``start`` to A times it. Ends when the residual of the
    eigenvalue of largest magnitude is at most ``tolerance`` times it, when the space is
    exhausted, or after ``max_steps``. The residual bounds the eigenvalue's error, whose own size
    is about its square; watching the change per step instead would end on a plateau. Every step
    is orthogonalised against all earlier ones, without which rounding brings found eigenvalues
    back as ghosts.
    """
    basis = [start / start.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        image = product(basis[-1])
        diagonal.append(float((image * basis[-1]).sum()))
        matrix = tridiagonal(diagonal, beside)
        values, vectors = torch.linalg.eigh(matrix)
        top = int(values.abs().argmax())
        largest = float(values[top].abs())
        known = torch.stack(basis).flatten(1)
        rest = image.flatten()
        for _ in range(2):  # once leaves the rounding of the first subtraction
            rest = rest - known.T @ (known @ rest)
        length = float(rest.norm())
        residual = length * float(vectors[-1, top].abs())
        exhausted = length <= 1e-6 * largest  # an invariant subspace, all of which is found
        if residual <= tolerance * largest or exhausted or len(diagonal) == max_steps:
            return matrix
        beside.append(length)
        basis.append((rest / length).view_as(start))


def tridiagonal(diagonal: list[float], beside: list[float]) -> Tensor:
    matrix: Tensor = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    off = torch.tensor(beside, dtype=torch.float64)
    return matrix + torch.diag(off, 1) + torch.diag(off, -1)
