// The wgmma products of second_moments on the host. Standard input: a line of numbers that describe
// the case, tiles as int32, then the staged rows of both sides as float16, row by row; standard
// output: the sums of each tile over each panel.
#include <cstdio>
#include <iostream>
#include <vector>

#include "second_moments/products_sm90.cuh"

using namespace fastinn;
using namespace fastinn::panels;

namespace {

template <typename T>
std::vector<T> read_values(size_t n) {
  std::vector<T> values(n);
  std::cin.read(reinterpret_cast<char*>(values.data()), sizeof(T) * n);
  if (!std::cin) sm90::fail("input ends early");
  return values;
}

struct alignas(16) Chunk {
  _Float16 rows[kChunkRows];
};

// From the order of a matrix to that in which the kernel reads it.
std::vector<Chunk> read_staged(int64_t rows, int64_t columns) {
  const auto matrix = read_values<_Float16>(rows * columns);
  std::vector<Chunk> staged(rows * columns / kChunkRows);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t column = 0; column < columns; ++column) {
      const int64_t offset = step_offset(row / kStepRows, columns) +
                             chunk_offset(column, row % kStepRows / kChunkRows);
      staged[offset / kChunkBytes].rows[row % kChunkRows] = matrix[row * columns + column];
    }
  return staged;
}

const char* start_of(const std::vector<Chunk>& staged) {
  return reinterpret_cast<const char*>(staged.data());
}

}  // namespace

int main() {
  std::ios::sync_with_stdio(false);
  bool split;
  int n_blocks, seed;
  Products op{};
  std::cin >> split >> n_blocks >> seed >> op.n_layers >> op.rows >> op.panel;
  std::cin >> op.x.columns >> op.y.columns >> op.n_tiles;
  std::cin.get();  // the end of the line
  const auto tiles = read_values<int>(2 * op.n_tiles);
  op.tiles = tiles.data();
  std::vector<Chunk> staged[4];
  int k = 0;
  for (Side* side : {&op.x, &op.y}) {
    side->high = start_of(staged[k++] = read_staged(op.n_layers * op.rows, side->columns));
    if (split)
      side->low = start_of(staged[k++] = read_staged(op.n_layers * op.rows, side->columns));
  }
  std::vector<float> partial(n_works(op) * kTileHeight * kTileWidth, NAN);
  op.partial = partial.data();
  sm90::gridDim.x = n_blocks;
  for (sm90::blockIdx.x = 0; sm90::blockIdx.x < sm90::gridDim.x; ++sm90::blockIdx.x)
    sm90::run_block_of(kThreads, kSharedBytes, seed + sm90::blockIdx.x, [&](const void* memory) {
      split ? run_block<true>(op, memory) : run_block<false>(op, memory);
    });
  std::cout.write(reinterpret_cast<const char*>(partial.data()), 4 * partial.size());
}
