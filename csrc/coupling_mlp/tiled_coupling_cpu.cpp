#include "common/amx.h"
#include "coupling_mlp/tiled_coupling.h"

#if defined(__AMX_BF16__)

#include <omp.h>

#include <algorithm>
#include <vector>

#include "common/buffer.h"
#include "coupling_mlp/coupling_rows.h"
#include "coupling_mlp/formula.h"

namespace fastinn {
namespace {

// Columns of a panel of weights and rows of a strip: two matrix tiles.
constexpr int64_t kStrip = 2 * kTileRows;
constexpr int64_t kStepSize = 2 * kTilePairs;
// Entries of the widest activations of a block of rows.
constexpr int64_t kBlockEntries = 1 << 19;
constexpr int64_t kMostRows = 192;

using Pairs = uint32_t;
using Products = float[kStrip][kStrip];

inline __m512i narrowed(const float* values) {
  return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(values + 16), _mm512_loadu_ps(values));
}

// Operands of products in the order in which they are read: strip after strip of 32 rows, in each
// step after step of 32 entries, both tiles of a step together. Filled up with zeros.
struct Operand {
  int64_t n_steps;
  Buffer<Pairs> data;

  Operand(int64_t n_rows, int64_t n_entries)
      : n_steps(ceil_div(n_entries, kTileDepth)),
        data(allocate<Pairs>(ceil_div(n_rows, kStrip) * n_steps * kStepSize)) {}

  Pairs* at(int64_t strip, int64_t step) const {
    return data.get() + (strip * n_steps + step) * kStepSize;
  }
};

// Reads up to 32 entries and fills them up with zeros.
inline void read_entries(const float* first, int64_t stride, int64_t n, float* entries) {
  if (n == kTileDepth && stride == 1) {
    std::copy(first, first + kTileDepth, entries);
    return;
  }
  for (int64_t i = 0; i < n; ++i) entries[i] = first[i * stride];
  std::fill(entries + n, entries + kTileDepth, 0.0f);
}

// Rounds one step of a strip: rows of 32 entries, as left operands hold them.
inline void round_step(const Matrix<const float>& from, int64_t row, int64_t n_rows, int64_t column,
                       int64_t n_columns, Pairs* out) {
  float entries[kTileDepth];
  for (int64_t i = 0; i < kStrip; ++i, out += 16) {
    const int64_t n = i < n_rows ? n_columns : 0;
    read_entries(from.data + (row + i) * from.row_stride + column * from.column_stride,
                 from.column_stride, n, entries);
    _mm512_storeu_si512(out, narrowed(entries));
  }
}

void round_rows(const Matrix<const float>& from, int64_t first, int64_t n_rows, int64_t n_columns,
                const Operand& out) {
  for (int64_t row = 0; row < n_rows; row += kStrip)
    for (int64_t column = 0; column < n_columns; column += kTileDepth)
      round_step(from, first + row, std::min(kStrip, n_rows - row), column,
                 std::min(kTileDepth, n_columns - column),
                 out.at(row / kStrip, column / kTileDepth));
}

// The weights (n_out, n_in) of one network, whose products are with rows of n_in entries.
Operand packed_weights(const float* weight, int64_t n_out, int64_t n_in) {
  Operand packed(n_out, n_in);
  const Matrix<const float> from{weight, n_in, 1};
#pragma omp parallel for collapse(2) schedule(static)
  for (int64_t strip = 0; strip < ceil_div(n_out, kStrip); ++strip)
    for (int64_t step = 0; step < packed.n_steps; ++step) {
      const int64_t row = strip * kStrip, column = step * kTileDepth;
      alignas(64) Pairs rounded[kStepSize];
      round_step(from, row, std::min(kStrip, n_out - row), column,
                 std::min(kTileDepth, n_in - column), rounded);
      for (int64_t tile = 0; tile < 2; ++tile) {
        __m512i rows[kTileRows];
        for (int64_t i = 0; i < kTileRows; ++i)
          rows[i] = _mm512_load_si512(rounded + tile * kTilePairs + i * 16);
        transpose(rows, packed.at(strip, step) + tile * kTilePairs);
      }
    }
  return packed;
}

inline void multiply(const Pairs* left, const Pairs* right, int64_t n_steps, Products& products) {
  constexpr int row_bytes = 64, stride = sizeof products[0];
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t step = 0; step < n_steps; ++step, left += kStepSize, right += kStepSize) {
    _tile_loadd(4, left, row_bytes);
    _tile_loadd(6, right, row_bytes);
    _tile_loadd(7, right + kTilePairs, row_bytes);
    _tile_loadd(5, left + kTilePairs, row_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, products[0], stride);
  _tile_stored(1, products[0] + kTileRows, stride);
  _tile_stored(2, products[kTileRows], stride);
  _tile_stored(3, products[kTileRows] + kTileRows, stride);
}

// Calls `function` with the place of every 32 x 32 products of rows and weights, and the products.
template <typename Function>
void for_each_products(const Operand& rows, int64_t n_rows, const Operand& weights, int64_t n_out,
                       Function&& function) {
  alignas(64) Products products;
  for (int64_t column = 0; column < n_out; column += kStrip)
    for (int64_t row = 0; row < n_rows; row += kStrip) {
      multiply(rows.at(row / kStrip, 0), weights.at(column / kStrip, 0), rows.n_steps, products);
      function(row, column, products);
    }
}

// One layer of one network.
struct PackedLayer {
  Operand weight;
  std::vector<float> bias;  // of whole panels

  PackedLayer(const LinearLayer& layer, int64_t network)
      : weight(packed_weights(layer.weight + network * layer.n_out * layer.n_in, layer.n_out,
                              layer.n_in)),
        bias(ceil_div(layer.n_out, kStrip) * kStrip) {
    std::copy_n(layer.bias + network * layer.n_out, layer.n_out, bias.begin());
  }
};

// Where what goes into the activations of a block of rows is kept.
struct Pre {
  BFloat16* first;  // null: nowhere
  int64_t stride;
};

template <Activation activation>
void hidden_layer(const Operand& rows, int64_t n_rows, const PackedLayer& layer, int64_t n_out,
                  const Pre& pre, const Operand& out) {
  for_each_products(rows, n_rows, layer.weight, n_out,
                    [&](int64_t row, int64_t column, Products& products) {
                      const float* bias = layer.bias.data() + column;
                      Pairs* post = out.at(row / kStrip, column / kStrip);
                      for (int64_t i = 0; i < kStrip; ++i, post += 16) {
                        float* sums = products[i];
#pragma omp simd
                        for (int64_t j = 0; j < kStrip; ++j) sums[j] += bias[j];
                        if (pre.first && row + i < n_rows)
                          narrow_all(sums, std::min(kStrip, n_out - column),
                                     pre.first + (row + i) * pre.stride + column);
#pragma omp simd
                        for (int64_t j = 0; j < kStrip; ++j)
                          sums[j] = activated<activation>(sums[j]).value;
                        _mm512_storeu_si512(post, narrowed(sums));
                      }
                    });
}

void last_layer(const Operand& rows, int64_t n_rows, const PackedLayer& layer, int64_t n_out,
                float* out, int64_t stride) {
  for_each_products(rows, n_rows, layer.weight, n_out,
                    [&](int64_t row, int64_t column, Products& products) {
                      const int64_t n = std::min(kStrip, n_out - column);
                      for (int64_t i = 0; i < std::min(kStrip, n_rows - row); ++i)
                        std::copy_n(products[i], n, out + (row + i) * stride + column);
                    });
}

template <typename T>
Matrix<T> from_row(const Matrix<T>& matrix, int64_t row) {
  return {matrix.data + row * matrix.row_stride, matrix.row_stride, matrix.column_stride};
}

MlpCoupling<float> from_row(const MlpCoupling<float>& op, int64_t row, const float* product) {
  MlpCoupling<float> part = op;
  part.product.data = product;
  part.kept = from_row(op.kept, row);
  part.moved = from_row(op.moved, row);
  part.kept_output = from_row(op.kept_output, row);
  part.moved_output = from_row(op.moved_output, row);
  part.log_det = op.log_det + row;
  if (op.log_scale) part.log_scale = op.log_scale + row * op.n_moved;
  return part;
}

using Network = std::vector<PackedLayer>;

std::vector<Network> packed_networks(const TiledCoupling& op) {
  std::vector<Network> networks(op.n_networks);
  for (int64_t i = 0; i < op.n_networks; ++i)
    for (const LinearLayer& layer : op.layers) networks[i].emplace_back(layer, i);
  return networks;
}

// The activations of one network and the products of all, for a block of rows of one thread.
struct Activations {
  Operand kept;
  std::vector<Operand> post;
  std::vector<float> product;

  Activations(const TiledCoupling& op, int64_t n_rows)
      : kept(n_rows, op.coupling.n_kept), product(n_rows * 2 * op.coupling.n_moved) {
    for (const LinearLayer& layer : op.layers) post.emplace_back(n_rows, layer.n_out);
  }
};

template <Activation activation>
void run_network(const TiledCoupling& op, const Network& network, int64_t index, int64_t first,
                 int64_t n_rows, Activations& block) {
  const Operand* rows = &block.kept;
  const size_t last = network.size() - 1;
  for (size_t i = 0; i < last; ++i) {
    const LinearLayer& layer = op.layers[i];
    const int64_t stride = op.n_networks * layer.n_out;
    BFloat16* pre = layer.pre ? layer.pre + first * stride + index * layer.n_out : nullptr;
    hidden_layer<activation>(*rows, n_rows, network[i], layer.n_out, {pre, stride}, block.post[i]);
    rows = &block.post[i];
  }
  const int64_t n_out = op.layers[last].n_out;
  last_layer(*rows, n_rows, network[last], n_out, block.product.data() + index * n_out,
             op.n_networks * n_out);
}

template <Direction direction>
void couple_block(const MlpCoupling<float>& op, int64_t n_rows) {
  for (int64_t row = 0; row < n_rows; ++row) {
    op.clamp > 0 ? couple_row<direction, true>(op, row) : couple_row<direction, false>(op, row);
    copy_row(op.kept, row, op.n_kept, op.kept_output);
  }
}

// As many rows as stay in the cache, and as many blocks for every thread.
int64_t rows_of_block(const TiledCoupling& op) {
  int64_t widest = 1;
  for (const LinearLayer& layer : op.layers) widest = std::max(widest, layer.n_out);
  const int64_t most = std::clamp(kBlockEntries / widest, kStrip, kMostRows);
  const int64_t n_threads = omp_get_max_threads(), n = op.coupling.n_samples;
  const int64_t n_blocks = ceil_div(ceil_div(n, most), n_threads) * n_threads;
  return ceil_div(ceil_div(n, n_blocks), kStrip) * kStrip;
}

template <Direction direction, Activation activation>
void run(const TiledCoupling& op) {
  const std::vector<Network> networks = packed_networks(op);
  const int64_t n = op.coupling.n_samples, most = rows_of_block(op);
#pragma omp parallel
  {
    const WholeTiles tiles;
    Activations block(op, most);
#pragma omp for schedule(static)
    for (int64_t first = 0; first < n; first += most) {
      const int64_t n_rows = std::min(most, n - first);
      round_rows(op.coupling.kept, first, n_rows, op.coupling.n_kept, block.kept);
      for (int64_t i = 0; i < op.n_networks; ++i)
        run_network<activation>(op, networks[i], i, first, n_rows, block);
      couple_block<direction>(from_row(op.coupling, first, block.product.data()), n_rows);
    }
  }
}

}  // namespace

template <Direction direction>
void tiled_coupling_amx(const TiledCoupling& op) {
  if (op.coupling.n_samples == 0) return;
  switch (op.activation) {
    case Activation::relu: return run<direction, Activation::relu>(op);
    case Activation::selu: return run<direction, Activation::selu>(op);
    case Activation::gelu: return run<direction, Activation::gelu>(op);
    case Activation::silu: return run<direction, Activation::silu>(op);
  }
}

template void tiled_coupling_amx<Direction::forward>(const TiledCoupling&);
template void tiled_coupling_amx<Direction::inverse>(const TiledCoupling&);

}  // namespace fastinn

#endif
