// The rows are packed into panels of a few columns, in the order in which the products read them.
// The result is cut into square tiles; one thread computes a tile over all rows of a chunk, in
// their order and in memory of its own, so that the bits do not depend on the number of threads.
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "common/bfloat16.h"
#include "common/float16.h"
#include "common/large_outputs.h"
#include "second_moments/second_moments.h"

namespace fastinn {
namespace {

constexpr Isa kIsa = Isa::FASTINN_ISA;
constexpr int64_t kVectorBytes = kIsa == Isa::avx512 ? 64 : kIsa == Isa::avx2 ? 32 : 16;

// float32 sums of more rows than this lose digits that the float64 merge cannot bring back.
constexpr int64_t kPromotedRows = 256;
// Rows that are packed at a time.
constexpr int64_t kChunkRows = 4096;
// Rows of a panel that are packed before those of the next panel.
constexpr int64_t kPackedRows = 8;
// Columns of a tile: the sums and the packed rows of the widest stay in the second-level cache; the
// narrower ones keep all threads busy where the result is small.
constexpr int64_t kWidestTile = 192;
constexpr int64_t kNarrowestTile = 96;
constexpr int64_t kTilesPerThread = 8;
// Rows from the second-level cache are asked for so many rows ahead.
constexpr int64_t kPrefetchedRows = 8;
// Rows and columns that are mirrored at a time. Those of a wide result may all lie in one set of
// the first-level cache, which holds few more.
constexpr int64_t kMirrored = 8;
// Below this many multiplications, waking the threads costs more than it saves.
constexpr int64_t kSerial = 1 << 18;

template <typename T>
using Vector __attribute__((vector_size(kVectorBytes), may_alias)) = T;

template <typename T>
constexpr int64_t kLanes = kVectorBytes / sizeof(T);

// Vectors of a row of a panel.
constexpr int64_t kBlockVectors = 3;

template <typename T>
constexpr int64_t kPanel = kBlockVectors * kLanes<T>;

// A register block is kBlockRows times three vectors: with the three of the right side and one of
// the left it fits the 32 registers of AVX-512, and the 16 of AVX2 and SSE.
template <typename T>
constexpr int64_t kBlockRows = kIsa == Isa::avx512  ? 8
                               : kPanel<T> % 4 == 0 ? 4
                                                    : 3;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// --- Memory

template <typename T>
struct Free {
  void operator()(T* memory) const { ::operator delete[](memory, std::align_val_t(64)); }
};

template <typename T>
using Buffer = std::unique_ptr<T[], Free<T>>;

template <typename T>
Buffer<T> allocate(int64_t n) {
  Buffer<T> buffer(static_cast<T*>(::operator new[](n * sizeof(T), std::align_val_t(64))));
  expect_large_output(buffer.get(), n * sizeof(T));
  return buffer;
}

// --- Packing

float rounded_to_bfloat16(float value) {
  BFloat16 rounded;
  narrow(value, rounded);
  return widen(rounded);
}

// Packs `n_columns` of one row and fills the panel up with zeros.
template <typename T, bool bfloat16, typename S>
void pack_row(const S* __restrict row, int64_t column_stride, const double* __restrict shift,
              double root, int64_t n_columns, T* __restrict packed) {
  for (int64_t j = 0; j < n_columns; ++j) {
    const double wide = widen(row[j * column_stride]);
    const T value = static_cast<T>((wide - shift[j]) * root);
    packed[j] = bfloat16 ? rounded_to_bfloat16(static_cast<float>(value)) : value;
  }
  std::fill(packed + n_columns, packed + kPanel<T>, T(0));
}

// Calls `function` with the rows' address as a pointer to their type.
template <typename Function>
void with_element(const Rows& rows, Function&& function) {
  switch (rows.element) {
    case Element::float16: return function(static_cast<const Float16*>(rows.data));
    case Element::bfloat16: return function(static_cast<const BFloat16*>(rows.data));
    case Element::float32: return function(static_cast<const float*>(rows.data));
    case Element::float64: return function(static_cast<const double*>(rows.data));
  }
}

// Panels of all batches of one side, for one chunk of rows.
template <typename T>
struct Panels {
  T* data;
  int64_t n_panels;  // a batch
  int64_t n_rows;

  T* at(int64_t batch, int64_t panel, int64_t row) const {
    return data + ((batch * n_panels + panel) * n_rows + row) * kPanel<T>;
  }
};

template <typename T>
int64_t n_panels(const Rows& rows) {
  return ceil_div(rows.n_features, kPanel<T>);
}

template <typename T, bool bfloat16, typename S>
void pack_rows(const S* data, const SecondMoments& op, const Rows& rows, int64_t first_row,
               const Panels<T>& panels) {
#pragma omp parallel for collapse(2) schedule(static) if (panels.n_rows * rows.n_features > kSerial)
  for (int64_t batch = 0; batch < op.n_batches; ++batch)
    for (int64_t start = 0; start < panels.n_rows; start += kPackedRows)
      for (int64_t j = 0; j < rows.n_features; j += kPanel<T>) {
        const S* columns = data + batch * rows.batch_stride + j * rows.column_stride;
        const double* shift = rows.shift + batch * rows.n_features + j;
        const int64_t n_columns = std::min(kPanel<T>, rows.n_features - j);
        for (int64_t i = start; i < std::min(start + kPackedRows, panels.n_rows); ++i) {
          const S* row = columns + (first_row + i) * rows.row_stride;
          const double root = op.root[first_row + i];
          T* packed = panels.at(batch, j / kPanel<T>, i);
          if (rows.column_stride == 1 && n_columns == kPanel<T>)  // constants make the loop fast
            pack_row<T, bfloat16>(row, 1, shift, root, kPanel<T>, packed);
          else
            pack_row<T, bfloat16>(row, rows.column_stride, shift, root, n_columns, packed);
        }
      }
}

template <typename T>
void pack(const SecondMoments& op, const Rows& rows, int64_t first_row, const Panels<T>& panels) {
  with_element(rows, [&](auto data) {
    op.round_bfloat16 ? pack_rows<T, true>(data, op, rows, first_row, panels)
                      : pack_rows<T, false>(data, op, rows, first_row, panels);
  });
}

// --- Products

// Adds the products of kBlockRows columns of one panel with all columns of another to `sums`.
template <typename T>
void add_products(const T* __restrict left, const T* __restrict right, int64_t n_rows,
                  double* __restrict sums, int64_t stride) {
  static_assert(kPanel<T> % kBlockRows<T> == 0, "a panel holds whole blocks");
  constexpr int64_t n_left = kBlockRows<T>;
  Vector<T> sum[n_left][kBlockVectors] = {};
  for (int64_t row = 0; row < n_rows; ++row) {
    const auto* r = reinterpret_cast<const Vector<T>*>(right + row * kPanel<T>);
    for (int64_t j = 0; j < kBlockVectors; ++j)
      __builtin_prefetch(r + kPrefetchedRows * kBlockVectors + j);
#pragma GCC unroll 8
    for (int64_t i = 0; i < n_left; ++i) {
      const T l = left[row * kPanel<T> + i];
#pragma GCC unroll 3
      for (int64_t j = 0; j < kBlockVectors; ++j) sum[i][j] += l * r[j];
    }
  }
  alignas(kVectorBytes) T block[n_left][kPanel<T>];
  std::memcpy(block, sum, sizeof sum);
  for (int64_t i = 0; i < n_left; ++i)
    for (int64_t j = 0; j < kPanel<T>; ++j) sums[i * stride + j] += block[i][j];
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

int64_t n_tiles(const SecondMoments& op, int64_t size) {
  const int64_t down = ceil_div(op.left.n_features, size);
  return op.symmetric ? down * (down + 1) / 2 : down * ceil_div(op.right.n_features, size);
}

int64_t tile_size(const SecondMoments& op) {
  const int64_t least = kTilesPerThread * omp_get_max_threads();
  int64_t size = kWidestTile;
  while (size > kNarrowestTile && op.n_batches * n_tiles(op, size) < least) size /= 2;
  return size;
}

// Tile number `index` of a batch; of a symmetric product, row by row of the lower triangle.
Tile tile_at(const SecondMoments& op, int64_t size, int64_t batch, int64_t index) {
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

// Adds the products of `n_rows` rows to the sums of a tile, which have room for whole panels.
// Panels above the diagonal of a symmetric product are left out.
template <typename T>
void add_rows(const SecondMoments& op, const Tile& tile, const Panels<T>& left,
              const Panels<T>& right, int64_t row, int64_t n_rows, double* sums) {
  for (int64_t i = tile.top; i < tile.bottom; i += kPanel<T>) {
    const T* l = left.at(tile.batch, i / kPanel<T>, row);
    const int64_t end = op.symmetric ? std::min(tile.right, i + 1) : tile.right;
    const int64_t n_left = std::min(kPanel<T>, tile.bottom - i);
    for (int64_t k = 0; k < n_left; k += kBlockRows<T>)
      for (int64_t j = tile.left; j < end; j += kPanel<T>)
        add_products(l + k, right.at(tile.batch, j / kPanel<T>, row), n_rows,
                     sums + (i + k - tile.top) * tile.size + j - tile.left, tile.size);
  }
}

template <typename T>
Buffer<double> tile_sums(const SecondMoments& op, const Tile& tile, const Panels<T>& left,
                         const Panels<T>& right) {
  static_assert(kNarrowestTile % kPanel<T> == 0, "a tile holds whole panels");
  Buffer<double> sums = allocate<double>(tile.size * tile.size);
  std::fill(sums.get(), sums.get() + tile.size * tile.size, 0.0);
  for (int64_t row = 0; row < left.n_rows; row += kPromotedRows)
    add_rows(op, tile, left, right, row, std::min(kPromotedRows, left.n_rows - row), sums.get());
  return sums;
}

// Adds the sums of a tile to the result, which the first chunk writes.
void add_tile(const SecondMoments& op, const Tile& tile, const double* sums, bool first) {
  const int64_t width = op.right.n_features, n_across = tile.right - tile.left;
  double* out = op.out + (tile.batch * op.left.n_features + tile.top) * width + tile.left;
  for (int64_t i = 0; i < tile.bottom - tile.top; ++i, out += width, sums += tile.size)
    for (int64_t j = 0; j < n_across; ++j) out[j] = first ? sums[j] : out[j] + sums[j];
}

// Copies what is below the diagonal to above it, square by square.
void mirror(const SecondMoments& op, const Tile& tile) {
  const int64_t width = op.left.n_features;
  double* out = op.out + tile.batch * width * width;
  for (int64_t top = tile.top; top < tile.bottom; top += kMirrored)
    for (int64_t left = tile.left; left < std::min(tile.right, top + 1); left += kMirrored)
      for (int64_t j = left; j < std::min(tile.right, left + kMirrored); ++j)
        for (int64_t i = std::max(top, j); i < std::min(tile.bottom, top + kMirrored); ++i)
          out[j * width + i] = out[i * width + j];
}

template <typename Function>
void for_each_tile(const SecondMoments& op, Function&& function) {
  const int64_t size = tile_size(op), n = n_tiles(op, size);
  const int64_t work = op.n_rows * op.left.n_features * op.right.n_features;
#pragma omp parallel for collapse(2) schedule(dynamic) if (work > kSerial)
  for (int64_t batch = 0; batch < op.n_batches; ++batch)
    for (int64_t index = 0; index < n; ++index) function(tile_at(op, size, batch, index));
}

template <typename T>
Buffer<T> allocate_panels(const SecondMoments& op, const Rows& rows) {
  return allocate<T>(op.n_batches * n_panels<T>(rows) * std::min(kChunkRows, op.n_rows) *
                     kPanel<T>);
}

}  // namespace

template <Isa isa, typename T>
void second_moments_cpu(const SecondMoments& op) {
  const Buffer<T> left_buffer = allocate_panels<T>(op, op.left);
  const Buffer<T> right_buffer = op.symmetric ? nullptr : allocate_panels<T>(op, op.right);
  if (op.n_rows == 0)
    std::fill_n(op.out, op.n_batches * op.left.n_features * op.right.n_features, 0.0);
  for (int64_t row = 0; row < op.n_rows; row += kChunkRows) {
    const int64_t n_rows = std::min(kChunkRows, op.n_rows - row);
    const Panels<T> left{left_buffer.get(), n_panels<T>(op.left), n_rows};
    const Panels<T> right{right_buffer.get(), n_panels<T>(op.right), n_rows};
    pack(op, op.left, row, left);
    if (!op.symmetric) pack(op, op.right, row, right);
    const Panels<T>& other = op.symmetric ? left : right;
    for_each_tile(op, [&](const Tile& tile) {
      add_tile(op, tile, tile_sums(op, tile, left, other).get(), row == 0);
    });
  }
  if (op.symmetric) for_each_tile(op, [&](const Tile& tile) { mirror(op, tile); });
}

template void second_moments_cpu<kIsa, float>(const SecondMoments&);
template void second_moments_cpu<kIsa, double>(const SecondMoments&);

}  // namespace fastinn
