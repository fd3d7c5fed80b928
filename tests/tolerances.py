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

# Whole results and gradients at the shapes of the benches, relative to the largest entry: float32
# sums of up to 3072 products, and operands rounded to bfloat16 (2^-9) in several products in turn.
BENCH = {"exact": 2e-5, "high": 2e-5, "fast": 3e-2}

# Correlations from the benches' second moments: float64, what split products promise, and
# operands rounded to bfloat16, whose errors average out over the rows.
BENCH_CORRELATION = {"exact": 1e-12, "high": 2e-6, "fast": 1e-3}

# Gradients from rows that eight couplings recovered, over the largest entry, against those from
# stored rows. float32 measures 4e-7 to 6e-7, a few roundings a layer. With 16-bit operands the
# last bit of a recovered row can tip the rounding of an operand, by 2^-8 of itself: 2e-3 to 4e-3.
RECOMPUTED = {"exact": 3e-6, "fast": 2e-2}
