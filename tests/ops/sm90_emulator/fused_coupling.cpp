// The fused coupling kernel on the host. Standard input: a line of numbers that describe the case,
// then rows, weights and biases as float32; standard output: the rows and the log-determinants.
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <vector>

#include "coupling_mlp/fused_sm90.cuh"

using namespace fastinn;
using namespace fastinn::fused;

namespace {

std::vector<float> read_floats(size_t n) {
  std::vector<float> values(n);
  std::cin.read(reinterpret_cast<char*>(values.data()), 4 * n);
  if (!std::cin) sm90::fail("input ends early");
  return values;
}

struct Case {
  int inverse, activation, n_blocks, seed;
  FusedCoupling op{};
  std::vector<int> hidden;
};

Case read_case() {
  Case c;
  FusedCoupling& op = c.op;
  int n_hidden;
  std::cin >> c.inverse >> c.activation >> c.n_blocks >> c.seed >> op.n_samples >> op.n_features;
  std::cin >> op.kept.first >> op.kept.step >> op.kept.n;
  std::cin >> op.moved.first >> op.moved.step >> op.moved.n;
  std::cin >> op.clamp >> op.eps >> n_hidden;
  c.hidden.resize(n_hidden);
  for (int& width : c.hidden) std::cin >> width;
  std::cin.get();  // the end of the line
  op.activation = static_cast<Activation>(c.activation);
  op.plan = make_plan(op.kept.n, op.moved.n, n_hidden, c.hidden.data());
  if (op.plan.width == 0) sm90::fail("no plan for this case");
  return c;
}

struct alignas(16) Chunk {
  char bytes[16];
};

// Packs as the kernel on the device does, one thread after the other.
std::vector<Chunk> read_packed(const Case& c) {
  const Plan& plan = c.op.plan;
  Chunk poison;
  std::fill_n(poison.bytes, sizeof poison.bytes, char(0xff));
  std::vector<Chunk> packed(packed_bytes(plan) / sizeof(Chunk), poison);
  int n_inputs = plan.n_kept;
  for (int layer = 0; layer <= plan.n_hidden; ++layer) {
    const int n_outputs = layer < plan.n_hidden ? c.hidden[layer] : 2 * plan.n_moved;
    const std::vector<float> weight = read_floats(size_t(n_outputs) * n_inputs);
    const std::vector<float> bias = read_floats(n_outputs);
    const Linear linear{{weight.data(), n_inputs, 1}, bias.data(), n_outputs, n_inputs};
    for (int i = 0; i < chunks_of_layer(plan, layer); ++i)
      pack_chunk(plan, linear, layer, i, packed[0].bytes);
    n_inputs = n_outputs;
  }
  return packed;
}

template <int width>
void run(const Case& c, const void* memory) {
  c.inverse ? run_block<width, Direction::inverse>(c.op, memory)
            : run_block<width, Direction::forward>(c.op, memory);
}

void run_width(const Case& c, const void* memory) {
  switch (c.op.plan.width) {
    case 128: return run<128>(c, memory);
    case 256: return run<256>(c, memory);
    case 384: return run<384>(c, memory);
    default: sm90::fail("no kernel of this width");
  }
}

}  // namespace

int main() {
  std::ios::sync_with_stdio(false);
  Case c = read_case();
  const std::vector<float> rows = read_floats(c.op.n_samples * c.op.n_features);
  const std::vector<Chunk> packed = read_packed(c);
  std::vector<float> out(rows.size(), NAN), log_det(c.op.n_samples, NAN);
  c.op.input = rows.data();
  c.op.output = out.data();
  c.op.log_det = log_det.data();
  c.op = prepared(c.op, packed[0].bytes);
  sm90::gridDim.x = c.n_blocks;
  for (sm90::blockIdx.x = 0; sm90::blockIdx.x < sm90::gridDim.x; ++sm90::blockIdx.x)
    sm90::run_block_of(kThreads, shared_bytes(c.op.plan), c.seed + sm90::blockIdx.x,
                       [&](const void* memory) { run_width(c, memory); });
  std::cout.write(reinterpret_cast<const char*>(out.data()), 4 * out.size());
  std::cout.write(reinterpret_cast<const char*>(log_det.data()), 4 * log_det.size());
}
