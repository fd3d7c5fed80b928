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

# Largest error of a correlation, whatever the mean, the scale and the number of rows. exact: sums
# in float64; high: float32 sums of at most 512 rows, or split 16-bit products; fast: operands of
# 8 bits (4e-3), whose errors add up in short sums.
CORRELATION = {"exact": 1e-12, "high": 2e-6, "fast": 2e-2}
