"""The one tolerance table of the tests, with the reason for each entry."""

import torch

# Relative to the scale of the result. A few units in the last place of the type: every backend
# does the same handful of roundings per element, in an order of its own.
ELEMENTWISE = {torch.float32: 2e-6, torch.float64: 1e-14}

# Sums over a row grow with its length: log-determinants and weight gradients.
ROW_SUM = {torch.float32: 2e-5, torch.float64: 1e-13}

# 16-bit products: operands and results carry 8 bits (4e-3), and a layer chains a few of them.
ROUNDED = 3e-2

# One rounding to bfloat16, half a place, and what an approximation of 2^-12 adds.
BFLOAT16 = 2.0**-8 + 2.0**-11

# float64 against float64 of the same formula in another order of operations.
FORMULA = 1e-10

# Quantities from moments against the same quantity computed on the rows in float64.
MOMENTS = 1e-8

# Canonical correlations by the precision of the products of rows; those of condition 1e5 lose two
# digits of the 1e-7 of "high".
CANONICAL_CORRELATION = {"exact": MOMENTS, "high": 2e-5}

# Relative mean squared error of an exact linear bijection recovered by a closed form.
EXACT_BIJECTION = 1e-12

# The fused kernel against float64 with operands rounded to float16 alike: float32 sums in another
# order now and then round a hidden activation to the other float16 neighbour, 1e-3 of it.
FUSED_PRODUCTS = 3e-4

# There and back with the same float16 products: float32 rounding, amplified by the smallest scale.
ROUND_TRIP = 1e-5

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

# Root mean square over directions of W^T C W - I at condition 1e8, where a float64 factor leaves
# about eps * condition / 50.
WHITENED = 1e-9

# A network on two devices: float32 products of both, through a few couplings.
DEVICES = 1e-3

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

# Largest error of a correlation, whatever the mean, the scale and the number of rows. exact: sums
# in float64; high: float32 sums of at most 512 rows, or split 16-bit products; fast: operands of
# 8 bits (4e-3), whose errors add up in short sums.
CORRELATION = {"exact": 1e-12, "high": 2e-6, "fast": 2e-2}

# Error of an entry of a product of rows relative to the norms of both columns. exact: float64 sums.
# high: float32 sums of a few thousand rows; what a split leaves out is 2^-22 of an entry. fast: one
# float16 product, entries rounded to 2^-11.
SECOND_MOMENTS = {"exact": 1e-12, "high": 2e-6, "fast": 1e-3}

# The same of rows that are all alike: at most 512 float32 additions of one product,
# each of which may round by 2^-24 to the same side. 3.3e-6 was measured.
REPEATED_ROWS = 512 * 2.0**-24

# float32 sums of a few hundred products, relative to the largest sum.
FLOAT32_SUMS = 2e-6

# The same model on a padded batch and on a text alone: float32 products of other shapes.
SAME_MODEL = {"atol": 2e-5, "rtol": 2e-5}

# Absolute, of states of about 1: float32 sums of a batch of another shape, layer after layer.
HIDDEN_STATES = 1e-5

# Relative, of the states of a layer: weights and states rounded to 8 bits (4e-3) or 11 (5e-4), a
# few times a layer.
HIDDEN_STATES_16_BITS = {torch.bfloat16: 2e-2, torch.float16: 2.5e-3}

# Means of at most a hundred float32 states, summed in another order.
HIDDEN_STATE_MEANS = 2e-6

# Moments of rows in shards against those of all at once, precision "exact": sums and merges in
# float64 in another order, of rows whose entries are below ten.
SHARDED = 1e-12

# Round a cycle of float32 flows, in standard deviations: a few roundings a coupling, grown by the
# condition of the linear layers.
CYCLE = 1e-4

# Covariances of the same models' states encoded in other blocks: float32 sums of batches of another
# shape leave each state off by 1e-6 at most, and states are of about 1.
SAME_STATES = 2e-6
