"""The one tolerance table of the tests, with the reason for each entry."""

import torch

# Relative to the scale of the result. A few units in the last place of the type: every backend
# does the same handful of roundings per element, in an order of its own.
ELEMENTWISE = {torch.float32: 2e-6, torch.float64: 1e-14}

# Sums over a row grow with its length: log-determinants and weight gradients.
ROW_SUM = {torch.float32: 2e-5, torch.float64: 1e-13}

# 16-bit products: operands and results carry 8 bits (4e-3), and a layer chains a few of them.
ROUNDED = 3e-2

# float64 against float64 of the same formula in another order of operations.
FORMULA = 1e-10

# Quantities from moments against the same quantity computed on the rows in float64.
MOMENTS = 1e-8

# Relative mean squared error of an exact linear bijection recovered by a closed form.
EXACT_BIJECTION = 1e-12

# The fused kernel against float64 with operands rounded to float16 alike: float32 sums in another
# order now and then round a hidden activation to the other float16 neighbour, 1e-3 of it.
FUSED_PRODUCTS = 3e-4

# There and back with the same float16 products: float32 rounding, amplified by the smallest scale.
ROUND_TRIP = 1e-5

# Error of an entry of a product of rows relative to the norms of both columns. exact: float64 sums.
# high: float32 sums of a few thousand rows; what a split leaves out is 2^-22 of an entry. fast: one
# float16 product, entries rounded to 2^-11.
SECOND_MOMENTS = {"exact": 1e-12, "high": 2e-6, "fast": 1e-3}

# float32 sums of a few hundred products, relative to the largest sum.
FLOAT32_SUMS = 2e-6
