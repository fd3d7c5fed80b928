// The rows are packed into panels of a few columns, in the order in which the products read them.
// One thread computes a tile of the result over all rows of a chunk, in their order and in memory
// of its own, so that the bits do not depend on the number of threads.
#include <algorithm>
#include <cstring>

#include "second_moments/result_tiles.h"
#include "second_moments/split_products.h"

namespace fastinn {
namespace {

constexpr Isa kIsa = Isa::FASTINN_ISA;
constexpr int64_t kVectorBytes = kIsa >= Isa::avx512 ? 64 : kIsa == Isa::avx2 ? 32 : 16;

// float32 sums of more rows than this lose digits that the float64 merge cannot bring back.
constexpr int64_t kPromotedRows = 256;
// Rows that are packed at a time.
constexpr int64_t kChunkRows = 4096;
// Rows of a panel that are packed before those of the next panel.
constexpr int64_t kPackedRows = 8;
// Rows from the second-level cache are asked for so many rows ahead.
constexpr int64_t kPrefetchedRows = 8;
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
constexpr int64_t kBlockRows = kIsa >= Isa::avx512  ? 8
                               : kPanel<T> % 4 == 0 ? 4
                                                    : 3;

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

template <typename T>
Buffer<T> allocate_panels(const SecondMoments& op, const Rows& rows) {
  return allocate<T>(op.n_batches * n_panels<T>(rows) * std::min(kChunkRows, op.n_rows) *
                     kPanel<T>);
}

}  // namespace

template <Isa isa, typename T>
void second_moments_cpu(const SecondMoments& op) {
#if defined(__AMX_BF16__)
  if constexpr (std::is_same_v<T, float>)
    if (op.n_rows >= kLeastSplitRows) return split_products(op);
#endif
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
