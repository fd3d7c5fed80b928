// What the kernels of second moments share: the result is cut into square tiles, which threads take
// in turn. CPU only; internal linkage: each instruction set keeps its own copy.
#pragma once

#include <omp.h>

#include <algorithm>

#include "common/bfloat16.h"
#include "common/buffer.h"
#include "common/failure.h"
#include "common/float16.h"
#include "second_moments/second_moments.h"

namespace fastinn {
namespace {

// Columns of a tile: the sums and the packed rows of the widest stay in the second-level cache; the
// narrower ones keep all threads busy where the result is small.
constexpr int64_t kWidestTile = 192;
constexpr int64_t kNarrowestTile = 96;
constexpr int64_t kTilesPerThread = 4;
// Rows and columns that are mirrored at a time. Those of a wide result may all lie in one set of
// the first-level cache, which holds few more.
constexpr int64_t kMirrored = 8;
// Below this many multiplications, waking the threads costs more than it saves.
constexpr int64_t kSerial = 1 << 18;

// Calls `function` with the rows' address as a pointer to their type.
template <typename Function>
inline void with_element(const Rows& rows, Function&& function) {
  switch (rows.element) {
    case Element::float16: return function(static_cast<const Float16*>(rows.data));
    case Element::bfloat16: return function(static_cast<const BFloat16*>(rows.data));
    case Element::float32: return function(static_cast<const float*>(rows.data));
    case Element::float64: return function(static_cast<const double*>(rows.data));
  }
}

// Which entries of the result, and of which batch; at most `size` rows and columns.
struct Tile {
  int64_t size;
  int64_t batch;
  int64_t top;
  int64_t left;
  int64_t bottom;
  int64_t right;
};

inline int64_t n_tiles(const SecondMoments& op, int64_t size) {
  const int64_t down = ceil_div(op.left.n_features, size);
  return op.symmetric ? down * (down + 1) / 2 : down * ceil_div(op.right.n_features, size);
}

inline int64_t tile_size(const SecondMoments& op) {
  const int64_t least = kTilesPerThread * (omp_in_parallel() ? 1 : omp_get_max_threads());
  int64_t size = kWidestTile;
  while (size > kNarrowestTile && op.n_batches * n_tiles(op, size) < least) size /= 2;
  return size;
}

// Tile number `index` of a batch; of a symmetric product, row by row of the lower triangle.
inline Tile tile_at(const SecondMoments& op, int64_t size, int64_t batch, int64_t index) {
  int64_t i, j;
  if (op.symmetric) {
    for (i = 0; index > i; ++i) index -= i + 1;
    j = index;
  } else {
    const int64_t n_across = ceil_div(op.right.n_features, size);
    i = index / n_across;
    j = index % n_across;
  }
  return {size,
          batch,
          i * size,
          j * size,
          std::min((i + 1) * size, op.left.n_features),
          std::min((j + 1) * size, op.right.n_features)};
}

// Adds the sums of a tile to the result, which the first chunk writes.
inline void add_tile(const SecondMoments& op, const Tile& tile, const double* sums, bool first) {
  const int64_t width = op.right.n_features, n_across = tile.right - tile.left;
  double* out = op.out + (tile.batch * op.left.n_features + tile.top) * width + tile.left;
  for (int64_t i = 0; i < tile.bottom - tile.top; ++i, out += width, sums += tile.size)
    for (int64_t j = 0; j < n_across; ++j) out[j] = first ? sums[j] : out[j] + sums[j];
}

// Copies what is below the diagonal to above it, square by square.
inline void mirror(const SecondMoments& op, const Tile& tile) {
  const int64_t width = op.left.n_features;
  double* out = op.out + tile.batch * width * width;
  for (int64_t top = tile.top; top < tile.bottom; top += kMirrored)
    for (int64_t left = tile.left; left < std::min(tile.right, top + 1); left += kMirrored)
      for (int64_t j = left; j < std::min(tile.right, left + kMirrored); ++j)
        for (int64_t i = std::max(top, j); i < std::min(tile.bottom, top + kMirrored); ++i)
          out[j * width + i] = out[i * width + j];
}

template <typename Function>
inline void for_each_tile(const SecondMoments& op, Function&& function) {
  const int64_t size = tile_size(op), n = n_tiles(op, size);
  const int64_t work = op.n_rows * op.left.n_features * op.right.n_features;
  Failure failure;
#pragma omp parallel for collapse(2) schedule(dynamic) if (work > kSerial)
  for (int64_t batch = 0; batch < op.n_batches; ++batch)
    for (int64_t index = 0; index < n; ++index)
      failure.watch([&] { function(tile_at(op, size, batch, index)); });
  failure.rethrow();
}

}  // namespace
}  // namespace fastinn
