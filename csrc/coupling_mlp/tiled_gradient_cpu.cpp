// The gradients of a coupling layer on matrix tiles. Blocks of rows go back through the networks in
// the caches of one thread; what they leave is summed over rows, chunk after chunk, by all threads,
// each with its own entries of the weights' gradients: the order of sums is that of the rows.
#include "coupling_mlp/tile_operands.h"
#include "coupling_mlp/tiled_gradient.h"

#if defined(__AVX512BF16__)

#include <algorithm>
#include <optional>
#include <vector>

#include "common/failure.h"
#include "coupling_mlp/coupling_rows.h"
#include "coupling_mlp/rounded_formula.h"

namespace fastinn {
namespace {

// Rows go back through the network chunk after chunk, and each chunk is added to the gradients by
// the weights: entries of all its operands, and the most rows.
constexpr int64_t kChunkEntries = 1 << 25;
constexpr int64_t kLeastChunk = 512;
constexpr int64_t kMostChunk = 2048;
// Sums of 8 x 8 strips stay in the second-level cache, and the left operands of so many steps,
// 32 KiB, in the first-level one.
constexpr int64_t kPanel = 8;
constexpr int64_t kPanelSteps = 16;

// What the products of a chunk of rows have on both sides, by network and layer. Both are summed
// over rows: rows are the entries of these operands and features their strips.
struct Chunk {
  Operand kept;
  std::vector<std::vector<Operand>> post;
  std::vector<std::vector<Operand>> grads;

  Chunk(const TiledGradient& op, int64_t n_rows)
      : kept(op.n_kept, n_rows), post(op.n_networks), grads(op.n_networks) {
    for (int64_t i = 0; i < op.n_networks; ++i)
      for (const LinearGradient& layer : op.layers) {
        grads[i].emplace_back(layer.n_out, n_rows);
        if (layer.pre) post[i].emplace_back(layer.n_out, n_rows);
      }
  }

  // What enters a layer.
  const Operand& entering(int64_t network, size_t layer) const {
    return layer == 0 ? kept : post[network][layer - 1];
  }
};

// The gradients of a block of rows of one thread, as left operands of the next products.
struct Block {
  std::vector<float> grad_product;
  std::vector<Operand> grads;

  Block(const TiledGradient& op, int64_t n_rows) : grad_product(n_rows * 2 * op.coupling.n_moved) {
    for (const LinearGradient& layer : op.layers) grads.emplace_back(n_rows, layer.n_out);
  }
};

// Which rows a block has, and the first step of its chunk's operands that they fill.
struct Place {
  int64_t first;
  int64_t n_rows;
  int64_t step;
};

MlpCouplingGradient<float> from_row(const MlpCouplingGradient<float>& op, int64_t row,
                                    float* grad_product) {
  MlpCouplingGradient<float> part = op;
  part.grad_output = from_row(op.grad_output, row);
  part.grad_log_det = from_row(op.grad_log_det, row);
  part.known = from_row(op.known, row);
  part.log_scale = op.log_scale + row * op.n_moved;
  part.grad_input = from_row(op.grad_input, row);
  part.grad_product = grad_product;
  return part;
}

template <Direction direction>
void uncouple_block(const MlpCouplingGradient<float>& op, int64_t n_rows) {
  for (int64_t row = 0; row < n_rows; ++row)
    op.clamp > 0 ? differentiate_row<direction, true>(op, row)
                 : differentiate_row<direction, false>(op, row);
}

void keep_rows(const TiledGradient& op, const Place& place, const Operand& out) {
  for (int64_t row = 0; row < place.n_rows; row += kStrip)
    for (int64_t column = 0; column < op.n_kept; column += kStrip) {
      alignas(64) Pairs rounded[kStepSize];
      round_step(op.kept, place.first + row, std::min(kStrip, place.n_rows - row), column,
                 std::min(kStrip, op.n_kept - column), rounded);
      pair_rows(rounded, out.at(column / kStrip, place.step + row / kStrip));
    }
}

// Left operands of products that are summed over rows.
void keep_grad(const Pairs* grad, Pairs* out) {
  alignas(64) Pairs paired[kStepSize];
  pair_rows(grad, paired);
  transpose_step(paired, out);
}

void last_gradient(const TiledGradient& op, int64_t index, const Place& place, const Block& block,
                   const Operand& out) {
  const int64_t n_out = op.layers.back().n_out;
  const Operand& rounded = block.grads.back();
  const float* grad = block.grad_product.data() + index * n_out;
  round_rows({grad, 2 * op.coupling.n_moved, 1}, 0, place.n_rows, n_out, rounded);
  for (int64_t row = 0; row < place.n_rows; row += kStrip)
    for (int64_t column = 0; column < n_out; column += kStrip)
      keep_grad(rounded.at(row / kStrip, column / kStrip),
                out.at(column / kStrip, place.step + row / kStrip));
}

inline __m512 widened(__m256i entries) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(entries), 16));
}

// Takes 32 x 32 gradients from after the activation to before it; writes the activation again.
template <Activation activation>
void hidden_step(Products& products, const BFloat16* pre, int64_t stride, int64_t n_rows,
                 int64_t n_columns, Pairs* grad, Pairs* post) {
  for (int64_t i = 0; i < kStrip; ++i, pre += stride, grad += 16, post += 16) {
    const __m512i before = _mm512_maskz_loadu_epi16(first_entries(i < n_rows ? n_columns : 0), pre);
    // Rows of 64 bytes, too far apart to be expected: those of the next strip.
    if (i + kStrip < n_rows) _mm_prefetch(pre + kStrip * stride, _MM_HINT_T0);
    const auto low = rounded_activated<activation>(widened(_mm512_castsi512_si256(before)));
    const auto high = rounded_activated<activation>(widened(_mm512_extracti64x4_epi64(before, 1)));
    _mm512_storeu_si512(grad, narrowed(_mm512_load_ps(products[i]) * low.slope,
                                       _mm512_load_ps(products[i] + 16) * high.slope));
    _mm512_storeu_si512(post, narrowed(low.value, high.value));
  }
}

template <Activation activation>
void hidden_gradient(const TiledGradient& op, int64_t index, size_t layer, const Operand& weight,
                     const Place& place, const Block& block, const Chunk& chunk) {
  const int64_t n_out = op.layers[layer].n_out, stride = op.n_networks * n_out;
  const BFloat16* pre = op.layers[layer].pre + place.first * stride + index * n_out;
  const auto finish = [&](int64_t row, int64_t column, Products& products) {
    const int64_t strip = column / kStrip, step = place.step + row / kStrip;
    Pairs* grad = block.grads[layer].at(row / kStrip, strip);
    alignas(64) Pairs post[kStepSize];
    hidden_step<activation>(products, pre + row * stride + column, stride, place.n_rows - row,
                            std::min(kStrip, n_out - column), grad, post);
    keep_grad(grad, chunk.grads[index][layer].at(strip, step));
    pair_rows(post, chunk.post[index][layer].at(strip, step));
  };
  for_each_products(block.grads[layer + 1], place.n_rows, weight, n_out, finish);
}

void kept_gradient(const TiledGradient& op, const Operand& weight, const Place& place,
                   const Block& block) {
  const Matrix<float> out = from_row(op.grad_kept, place.first);
  const auto finish = [&](int64_t row, int64_t column, Products& products) {
    const int64_t n = std::min(kStrip, op.n_kept - column);
    for (int64_t i = 0; i < std::min(kStrip, place.n_rows - row); ++i) {
      float* to = out.data + (row + i) * out.row_stride + column * out.column_stride;
      for (int64_t j = 0; j < n; ++j) to[j * out.column_stride] += products[i][j];
    }
  };
  for_each_products(block.grads[0], place.n_rows, weight, op.n_kept, finish);
}

using Network = std::vector<Operand>;

template <Direction direction, Activation activation>
void differentiate_block(const TiledGradient& op, const std::vector<Network>& networks,
                         const Place& place, Block& block, const Chunk& chunk) {
  uncouple_block<direction>(from_row(op.coupling, place.first, block.grad_product.data()),
                            place.n_rows);
  keep_rows(op, place, chunk.kept);
  for (int64_t row = place.first; row < place.first + place.n_rows; ++row)
    copy_row(op.grad_kept_output, row, op.n_kept, op.grad_kept);
  for (int64_t i = 0; i < op.n_networks; ++i) {
    last_gradient(op, i, place, block, chunk.grads[i].back());
    for (size_t layer = op.layers.size() - 1; layer-- > 0;)
      hidden_gradient<activation>(op, i, layer, networks[i][layer + 1], place, block, chunk);
    kept_gradient(op, networks[i][0], place, block);
  }
}

// Where the sums over rows go: entries of a matrix or a vector. A first chunk overwrites them.
struct Total {
  float* data;
  int64_t stride;
  bool overwrites;

  void add(const float* sums, int64_t row, int64_t column, int64_t n) const {
    float* to = data + row * stride + column;
    if (overwrites) {
      std::copy_n(sums, n, to);
    } else {
      for (int64_t j = 0; j < n; ++j) to[j] += sums[j];
    }
  }
};

// Adds the products of up to 8 x 8 strips, from the given ones on.
void weight_panel(const Operand& grads, const Operand& entering, int64_t n_steps, int64_t n_out,
                  int64_t n_in, int64_t strip, int64_t column_strip, const Total& total,
                  Products* sums) {
  const int64_t height = std::min(kPanel, ceil_div(n_out, kStrip) - strip);
  const int64_t width = std::min(kPanel, ceil_div(n_in, kStrip) - column_strip);
  for (int64_t step = 0; step < n_steps; step += kPanelSteps)
    for (int64_t i = 0; i < height; ++i)
      for (int64_t j = 0; j < width; ++j) {
        const Pairs* left = grads.at(strip + i, step);
        const Pairs* right = entering.at(column_strip + j, step);
        const int64_t n = std::min(kPanelSteps, n_steps - step);
        Products& products = sums[i * kPanel + j];
        step == 0 ? multiply(left, right, n, products) : multiply_add(left, right, n, products);
      }
  for (int64_t i = 0; i < height; ++i)
    for (int64_t j = 0; j < width; ++j) {
      const int64_t row = (strip + i) * kStrip, column = (column_strip + j) * kStrip;
      for (int64_t r = 0; r < std::min(kStrip, n_out - row); ++r)
        total.add(sums[i * kPanel + j][r], row + r, column, std::min(kStrip, n_in - column));
    }
}

// The sums over rows of one strip of features.
void bias_strip(const Operand& grads, int64_t n_steps, int64_t strip, float* sums) {
  const auto ones = (__m512bh)_mm512_set1_epi16(0x3f80);
  for (int64_t i = 0; i < kStrip; ++i) {
    __m512 sum = _mm512_setzero_ps();
    const Pairs* row = grads.at(strip, 0) + i * 16;
    for (int64_t step = 0; step < n_steps; ++step, row += kStepSize)
      sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_loadu_si512(row), ones);
    sums[i] = _mm512_reduce_add_ps(sum);
  }
}

// Adds the rows of a chunk to the gradients of one layer of one network; all threads share this.
void add_chunk(const Operand& grads, const Operand& entering, int64_t n_steps,
               const LinearGradient& layer, int64_t index, bool overwrites, Products* sums) {
  const int64_t n_out = layer.n_out, n_in = layer.n_in, n_strips = ceil_div(n_out, kStrip);
  const Total weight{layer.grad_weight + index * n_out * n_in, n_in, overwrites};
  const Total bias{layer.grad_bias + index * n_out, 0, overwrites};
#pragma omp for collapse(2) schedule(static) nowait
  for (int64_t strip = 0; strip < n_strips; strip += kPanel)
    for (int64_t column_strip = 0; column_strip < ceil_div(n_in, kStrip); column_strip += kPanel)
      weight_panel(grads, entering, n_steps, n_out, n_in, strip, column_strip, weight, sums);
#pragma omp for schedule(static) nowait
  for (int64_t strip = 0; strip < n_strips; ++strip) {
    float of_strip[kStrip];
    bias_strip(grads, n_steps, strip, of_strip);
    const int64_t column = strip * kStrip;
    bias.add(of_strip, 0, column, std::min(kStrip, n_out - column));
  }
}

std::vector<Network> packed_networks(const TiledGradient& op) {
  std::vector<Network> networks(op.n_networks);
  for (int64_t i = 0; i < op.n_networks; ++i)
    for (const LinearGradient& layer : op.layers)
      networks[i].push_back(
          packed_transposed(layer.weight + i * layer.n_out * layer.n_in, layer.n_out, layer.n_in));
  return networks;
}

int64_t rows_of_chunk(const TiledGradient& op) {
  int64_t width = op.n_kept;
  for (const LinearGradient& layer : op.layers) width += 2 * op.n_networks * layer.n_out;
  const int64_t most = std::clamp(kChunkEntries / width, kLeastChunk, kMostChunk);
  return ceil_div(std::min(op.coupling.n_samples, most), kStrip) * kStrip;
}

int64_t widest_layer(const TiledGradient& op) {
  int64_t widest = 1;
  for (const LinearGradient& layer : op.layers) widest = std::max(widest, layer.n_out);
  return widest;
}

void clear(const TiledGradient& op) {
  for (const LinearGradient& layer : op.layers) {
    std::fill_n(layer.grad_weight, op.n_networks * layer.n_out * layer.n_in, 0.0f);
    std::fill_n(layer.grad_bias, op.n_networks * layer.n_out, 0.0f);
  }
}

// Fresh memory, written from end to end in small pieces.
void expect_weight_gradients(const TiledGradient& op) {
  for (const LinearGradient& layer : op.layers) {
    const int64_t bytes = op.n_networks * layer.n_out * layer.n_in * sizeof(float);
    if (bytes >= kManyPages) prefer_huge_pages(layer.grad_weight, bytes);
  }
}

template <Direction direction, Activation activation>
void run(const TiledGradient& op) {
  expect_weight_gradients(op);
  const std::vector<Network> networks = packed_networks(op);
  const int64_t n = op.coupling.n_samples, most = rows_of_chunk(op);
  const int64_t n_rows = rows_of_block(most, widest_layer(op));
  const Chunk chunk(op, most);
  Failure failure;
#pragma omp parallel
  {
    [[maybe_unused]] const WholeTiles tiles;
    std::optional<Block> block;
    Buffer<Products> sums;
    failure.watch([&] {
      block.emplace(op, n_rows);
      sums = allocate<Products>(kPanel * kPanel);
    });
#pragma omp barrier
    for (int64_t first = 0; first < n && !failure; first += most) {
      const int64_t end = std::min(first + most, n);
#pragma omp for schedule(static)
      for (int64_t row = first; row < end; row += n_rows) {
        const Place place{row, std::min(n_rows, end - row), (row - first) / kStrip};
        differentiate_block<direction, activation>(op, networks, place, *block, chunk);
      }
      for (int64_t i = 0; i < op.n_networks; ++i)
        for (size_t layer = 0; layer < op.layers.size(); ++layer)
          add_chunk(chunk.grads[i][layer], chunk.entering(i, layer), ceil_div(end - first, kStrip),
                    op.layers[layer], i, first == 0, sums.get());
#pragma omp barrier
    }
  }
  failure.rethrow();
}

}  // namespace

template <Isa isa, Direction direction>
void tiled_gradient_cpu(const TiledGradient& op) {
  if (op.coupling.n_samples == 0) return clear(op);
  switch (op.activation) {
    case Activation::relu: return run<direction, Activation::relu>(op);
    case Activation::selu: return run<direction, Activation::selu>(op);
    case Activation::gelu: return run<direction, Activation::gelu>(op);
    case Activation::silu: return run<direction, Activation::silu>(op);
  }
}

template void tiled_gradient_cpu<Isa::FASTINN_ISA, Direction::forward>(const TiledGradient&);
template void tiled_gradient_cpu<Isa::FASTINN_ISA, Direction::inverse>(const TiledGradient&);

}  // namespace fastinn

#endif
