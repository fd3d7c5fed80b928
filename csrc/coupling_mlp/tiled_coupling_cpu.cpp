#include "coupling_mlp/tile_operands.h"
#include "coupling_mlp/tiled_coupling.h"

#if defined(__AVX512BF16__)

#include <algorithm>
#include <optional>
#include <vector>

#include "common/failure.h"
#include "coupling_mlp/coupling_rows.h"
#include "coupling_mlp/rounded_formula.h"

namespace fastinn {
namespace {

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

// Writes the first n of 32 entries.
inline void store_entries(__m512i entries, int64_t n, BFloat16* out) {
  _mm512_mask_storeu_epi16(out, first_entries(n), entries);
}

template <Activation activation>
void hidden_layer(const Operand& rows, int64_t n_rows, const PackedLayer& layer, int64_t n_out,
                  const Pre& pre, const Operand& out) {
  for_each_products(
      rows, n_rows, layer.weight, n_out, [&](int64_t row, int64_t column, Products& products) {
        const float* bias = layer.bias.data() + column;
        Pairs* post = out.at(row / kStrip, column / kStrip);
        for (int64_t i = 0; i < kStrip; ++i, post += 16) {
          float* sums = products[i];
          const __m512 low = _mm512_load_ps(sums) + _mm512_loadu_ps(bias);
          const __m512 high = _mm512_load_ps(sums + 16) + _mm512_loadu_ps(bias + 16);
          if (pre.first && row + i < n_rows)
            store_entries(narrowed(low, high), std::min(kStrip, n_out - column),
                          pre.first + (row + i) * pre.stride + column);
          _mm512_storeu_si512(post, narrowed(rounded_activated<activation>(low).value,
                                             rounded_activated<activation>(high).value));
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

int64_t widest_layer(const TiledCoupling& op) {
  int64_t widest = 1;
  for (const LinearLayer& layer : op.layers) widest = std::max(widest, layer.n_out);
  return widest;
}

template <Direction direction, Activation activation>
void run(const TiledCoupling& op) {
  const std::vector<Network> networks = packed_networks(op);
  const int64_t n = op.coupling.n_samples, most = rows_of_block(n, widest_layer(op));
  Failure failure;
#pragma omp parallel
  {
    [[maybe_unused]] const WholeTiles tiles;
    std::optional<Activations> block;
    failure.watch([&] { block.emplace(op, most); });
#pragma omp barrier
    const int64_t end = failure ? 0 : n;
#pragma omp for schedule(static)
    for (int64_t first = 0; first < end; first += most) {
      const int64_t n_rows = std::min(most, n - first);
      round_rows(op.coupling.kept, first, n_rows, op.coupling.n_kept, block->kept);
      for (int64_t i = 0; i < op.n_networks; ++i)
        run_network<activation>(op, networks[i], i, first, n_rows, *block);
      couple_block<direction>(from_row(op.coupling, first, block->product.data()), n_rows);
    }
  }
  failure.rethrow();
}

}  // namespace

template <Isa isa, Direction direction>
void tiled_coupling_cpu(const TiledCoupling& op) {
  if (op.coupling.n_samples == 0) return;
  switch (op.activation) {
    case Activation::relu: return run<direction, Activation::relu>(op);
    case Activation::selu: return run<direction, Activation::selu>(op);
    case Activation::gelu: return run<direction, Activation::gelu>(op);
    case Activation::silu: return run<direction, Activation::silu>(op);
  }
}

template void tiled_coupling_cpu<Isa::FASTINN_ISA, Direction::forward>(const TiledCoupling&);
template void tiled_coupling_cpu<Isa::FASTINN_ISA, Direction::inverse>(const TiledCoupling&);

}  // namespace fastinn

#endif
