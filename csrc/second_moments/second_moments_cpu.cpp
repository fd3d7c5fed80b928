// The rows are packed into panels of a few columns, in the order in which the products read them.
// The result is cut into square tiles; one thread computes a tile over all rows, in their order, so
// that the bits do not depend on the number of threads.
#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "common/bfloat16.h"
#include "common/float16.h"
#include "second_moments/second_moments.h"

namespace fastinn {
namespace {

constexpr Isa kIsa = Isa::FASTINN_ISA;
constexpr int64_t kVectorBytes = kIsa == Isa::avx512 ? 64 : kIsa == Isa::avx2 ? 32 : 16;

// A register block is kBlockRows times three vectors: with the three of the right side and one of
// the left it fills the 32 registers of AVX-512, and the 16 of AVX2 and SSE.
constexpr int64_t kBlockRows = kIsa == Isa::avx512 ? 8 : 4;
constexpr int64_t kBlockVectors = 3;

// float32 sums of more rows than this lose digits that the float64 merge cannot bring back.
constexpr int64_t kPromotedRows = 256;
// Rows that are packed at a time.
constexpr int64_t kChunkRows = 4096;
// Columns of a tile: its float64 sums and packed rows stay in the second-level cache.
constexpr int64_t kTile = 96;
// Below this many multiplications, waking the threads costs more than it saves.
constexpr int64_t kSerial = 1 << 18;

template <typename T>
using Vector __attribute__((vector_size(kVectorBytes), may_alias)) = T;

template <typename T>
constexpr int64_t kLanes = kVectorBytes / sizeof(T);

template <typename T>
constexpr int64_t kPanel = kBlockVectors * kLanes<T>;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

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
    for (int64_t i = 0; i < panels.n_rows; ++i) {
      const S* row = data + batch * rows.batch_stride + (first_row + i) * rows.row_stride;
      const double* shift = rows.shift + batch * rows.n_features;
      const double root = op.root[first_row + i];
      for (int64_t j = 0; j < rows.n_features; j += kPanel<T>) {
        const int64_t n_columns = std::min(kPanel<T>, rows.n_features - j);
        const S* source = row + j * rows.column_stride;
        T* target = panels.at(batch, j / kPanel<T>, i);
        if (rows.column_stride == 1 && n_columns == kPanel<T>)  // constants make the loop fast
          pack_row<T, bfloat16>(source, 1, shift + j, root, kPanel<T>, target);
        else
          pack_row<T, bfloat16>(source, rows.column_stride, shift + j, root, n_columns, target);
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

// Products of kBlockRows columns of one panel with all columns of another.
template <typename T>
struct Block {
  alignas(kVectorBytes) T entries[kBlockRows][kPanel<T>];
};

template <typename T>
Block<T> multiply(const T* __restrict left, const T* __restrict right, int64_t n_rows) {
  Vector<T> sum[kBlockRows][kBlockVectors] = {};
  for (int64_t row = 0; row < n_rows; ++row) {
    const auto* r = reinterpret_cast<const Vector<T>*>(right + row * kPanel<T>);
#pragma GCC unroll 8
    for (int64_t i = 0; i < kBlockRows; ++i) {
      const T l = left[row * kPanel<T> + i];
#pragma GCC unroll 3
      for (int64_t j = 0; j < kBlockVectors; ++j) sum[i][j] += l * r[j];
    }
  }
  Block<T> block;
  std::memcpy(block.entries, sum, sizeof sum);
  return block;
}

template <typename T>
void add(const Block<T>& block, int64_t n_down, int64_t n_across, double* __restrict out,
         int64_t out_stride) {
  for (int64_t i = 0; i < n_down; ++i)
    for (int64_t j = 0; j < n_across; ++j) out[i * out_stride + j] += block.entries[i][j];
}

// Adds the products of two panels to `n_left` x `n_right` entries of the result.
template <typename T>
void add_panel_product(const T* left, const T* right, int64_t n_rows, int64_t n_left,
                       int64_t n_right, double* out, int64_t out_stride) {
  for (int64_t i = 0; i < n_left; i += kBlockRows) {
    const Block<T> block = multiply(left + i, right, n_rows);
    const int64_t n_down = std::min(kBlockRows, n_left - i);
    if (n_down == kBlockRows && n_right == kPanel<T>)  // constants make the loops fast
      add(block, kBlockRows, kPanel<T>, out + i * out_stride, out_stride);
    else
      add(block, n_down, n_right, out + i * out_stride, out_stride);
  }
}

// Which entries of the result, and of which batch.
struct Tile {
  int64_t batch;
  int64_t top;
  int64_t left;
  int64_t bottom;
  int64_t right;
};

// Tile number `index` of a batch; of a symmetric product, row by row of the lower triangle.
Tile tile_at(const SecondMoments& op, int64_t batch, int64_t index) {
  int64_t i, j;
  if (op.symmetric) {
    for (i = 0; index > i; ++i) index -= i + 1;
    j = index;
  } else {
    const int64_t n_across = ceil_div(op.right.n_features, kTile);
    i = index / n_across;
    j = index % n_across;
  }
  return {batch, i * kTile, j * kTile, std::min((i + 1) * kTile, op.left.n_features),
          std::min((j + 1) * kTile, op.right.n_features)};
}

int64_t n_tiles(const SecondMoments& op) {
  const int64_t down = ceil_div(op.left.n_features, kTile);
  return op.symmetric ? down * (down + 1) / 2 : down * ceil_div(op.right.n_features, kTile);
}

template <typename T>
void add_tile(const SecondMoments& op, const Tile& tile, const Panels<T>& left,
              const Panels<T>& right) {
  static_assert(kTile % kPanel<T> == 0, "a tile holds whole panels");
  double* out = op.out + tile.batch * op.left.n_features * op.right.n_features;
  for (int64_t row = 0; row < left.n_rows; row += kPromotedRows)
    for (int64_t j = tile.left; j < tile.right; j += kPanel<T>)
      for (int64_t i = op.symmetric ? std::max(tile.top, j) : tile.top; i < tile.bottom;
           i += kPanel<T>)
        add_panel_product(left.at(tile.batch, i / kPanel<T>, row),
                          right.at(tile.batch, j / kPanel<T>, row),
                          std::min(kPromotedRows, left.n_rows - row),
                          std::min(kPanel<T>, tile.bottom - i), std::min(kPanel<T>, tile.right - j),
                          out + i * op.right.n_features + j, op.right.n_features);
}

void clear(const SecondMoments& op, const Tile& tile) {
  double* out = op.out + tile.batch * op.left.n_features * op.right.n_features;
  for (int64_t i = tile.top; i < tile.bottom; ++i)
    std::fill(out + i * op.right.n_features + tile.left, out + i * op.right.n_features + tile.right,
              0.0);
}

// Copies what is below the diagonal to above it.
void mirror(const SecondMoments& op, const Tile& tile) {
  const int64_t width = op.left.n_features;
  double* out = op.out + tile.batch * width * width;
  for (int64_t i = tile.top; i < tile.bottom; ++i)
    for (int64_t j = tile.left; j < std::min(tile.right, i); ++j)
      out[j * width + i] = out[i * width + j];
}

template <typename Function>
void for_each_tile(const SecondMoments& op, Function&& function) {
  const int64_t n = n_tiles(op);
  const int64_t work = op.n_rows * op.left.n_features * op.right.n_features;
#pragma omp parallel for collapse(2) schedule(dynamic) if (work > kSerial)
  for (int64_t batch = 0; batch < op.n_batches; ++batch)
    for (int64_t index = 0; index < n; ++index) function(tile_at(op, batch, index));
}

template <typename T>
struct Free {
  void operator()(T* memory) const { ::operator delete[](memory, std::align_val_t(64)); }
};

template <typename T>
using Buffer = std::unique_ptr<T[], Free<T>>;

template <typename T>
Buffer<T> allocate(int64_t n) {
  return Buffer<T>(static_cast<T*>(::operator new[](n * sizeof(T), std::align_val_t(64))));
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
  for_each_tile(op, [&](const Tile& tile) { clear(op, tile); });
  for (int64_t row = 0; row < op.n_rows; row += kChunkRows) {
    const int64_t n_rows = std::min(kChunkRows, op.n_rows - row);
    const Panels<T> left{left_buffer.get(), n_panels<T>(op.left), n_rows};
    const Panels<T> right{right_buffer.get(), n_panels<T>(op.right), n_rows};
    pack(op, op.left, row, left);
    if (!op.symmetric) pack(op, op.right, row, right);
    const Panels<T>& other = op.symmetric ? left : right;
    for_each_tile(op, [&](const Tile& tile) { add_tile(op, tile, left, other); });
  }
  if (op.symmetric) for_each_tile(op, [&](const Tile& tile) { mirror(op, tile); });
}

template void second_moments_cpu<kIsa, float>(const SecondMoments&);
template void second_moments_cpu<kIsa, double>(const SecondMoments&);

}  // namespace fastinn
