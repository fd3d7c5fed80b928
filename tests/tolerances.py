"""The one tolerance table of the tests, with the reason for each entry."""

import torch

# Relative to the scale of the result. A few units in the last place of the type: every backend
# does the same handful of roundings per element, in an order of its own.
ELEMENTWISE = {torch.float32: 2e-6, torch.float64: 1e-14}

# Sums over a row grow with its length: log-determinants and weight gradients.
ROW_SUM = {torch.float32: 2e-5, torch.float64: 1e-13}

# float64 against float64 of the same formula in another order of operations.
FORMULA = 1e-10

# Quantities from moments against the same quantity computed on the rows in float64.
MOMENTS = 1e-8

# Canonical correlations by the precision of the products of rows; those of condition 1e5 lose two
# digits of the 1e-7 of "high".
CORRELATION = {"exact": MOMENTS, "high": 2e-5}

# Relative mean squared error of an exact linear bijection recovered by a closed form.
EXACT_BIJECTION = 1e-12

# Root mean square over directions of W^T C W - I at condition 1e8, where a float64 factor leaves
# about eps * condition / 50.
WHITENED = 1e-9

# Largest entry of Q^T Q - I after the last float64 step; a sum of up to 61 products.
ORTHOGONAL = 1e-13

# Relative. Q maximises tr(K^T Q), so products rounded by e cost the norm about e^2, and in bfloat16
# (e = 4e-3) also what the values under 1e-3 hold.
NUCLEAR_NORM = {"exact": 1e-14, "high": 1e-9, "fast": 1e-3}

# How far a singular vector turns, times its value over the largest: float64 rounding of some 70
# products, each of 61 terms.
SINGULAR_VECTOR = 5e-13

# R2 of maps made by float32 products: singular vectors turn by 1e-7 over their relative value,
# 1e-3 here, and R2 on other rows follows to first order.
R2_HIGH = 1e-4
