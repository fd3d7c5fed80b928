// Second moments on a GPU in three steps: rows are staged (shifted, weighted, written as float16 or
// float64, padded with zeros), tiles of the product are summed over panels of rows, and the panels
// are merged in float64. What each step is given, and where every element lies.
#pragma once

#include <cstdint>

#include "common/host_device.h"
#include "second_moments/second_moments.h"

namespace fastinn {
namespace panels {

// What rows are staged as: float64; two float16, the second what the first leaves over; or the
// first alone.
enum class Form { real, split, single };

// --- Rows staged as float16 lie in steps of 64 rows, and in a step feature by feature, so that the
// features of a tile are one contiguous copy. The 64 rows of a feature take 128 bytes, in chunks of
// 8 rows which change places by the feature's number: 8 features then lie in different banks.

constexpr int kStepRows = 64;
constexpr int kChunkRows = 8;
constexpr int kChunkBytes = 2 * kChunkRows;
constexpr int kFeatureBytes = 2 * kStepRows;
constexpr int kSwizzledFeatures = kFeatureBytes / kChunkBytes;

// Byte offset of a chunk in the step of a tile; tiles start at multiples of 8 features.
FASTINN_HOST_DEVICE int64_t chunk_offset(int64_t feature, int chunk) {
  return feature * kFeatureBytes + (chunk ^ feature % kSwizzledFeatures) * kChunkBytes;
}

// Byte offset of a step in a staged matrix; `step` counts through all layers.
FASTINN_HOST_DEVICE int64_t step_offset(int64_t step, int64_t columns) {
  return step * columns * kFeatureBytes;
}

// Tiles of the product are that large, those of float64 rows less.
constexpr int kTileHeight = 128;
constexpr int kTileWidth = 192;
constexpr int kRealTile = 64;

// --- The steps.

struct Stage {
  int64_t n_layers, n_rows;
  Rows source;
  const double* root;            // of the weight of each row; nullptr: ones
  int64_t rows, columns, panel;  // staged rows and features, and rows of a panel
  char* high;
  char* low;      // nullptr unless split
  double* scale;  // (layers, panels, columns): rows are staged values times scale
};

struct Side {
  const char* high;
  const char* low;  // nullptr unless split
  int64_t columns;
};

struct Products {
  Side x, y;
  const int* tiles;  // row and column of each
  int64_t n_layers, n_tiles;
  int64_t rows, panel;
  void* partial;  // (layers, panels, tiles, height, width), float32; for float64 rows float64
};

struct Merge {
  const double* x_scale;
  const double* y_scale;
  int64_t x_columns, y_columns;
  const int* tiles;
  int64_t n_layers, n_panels, n_tiles;
  int height, width;
  const void* partial;
  double* out;
  int64_t layer_stride, row_stride, column_stride;
  int64_t n_rows, n_columns;
  bool symmetric;  // only the lower triangle was computed
  bool add;
};

FASTINN_HOST_DEVICE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One tile over one panel; blocks of threads take them in this order.
struct Work {
  int64_t first_step;  // counts through all layers
  int64_t n_steps;
  int64_t i, j;  // first feature of both sides
};

FASTINN_HOST_DEVICE int64_t n_works(const Products& op) {
  return op.n_layers * ceil_div(op.rows, op.panel) * op.n_tiles;
}

FASTINN_HOST_DEVICE Work work_at(const Products& op, int64_t index, int step_rows, int height,
                                 int width) {
  const int64_t n_panels = ceil_div(op.rows, op.panel);
  const int* tile = op.tiles + 2 * (index % op.n_tiles);
  const int64_t first = index / op.n_tiles % n_panels * op.panel;
  const int64_t layer = index / op.n_tiles / n_panels;
  const int64_t n_rows = op.panel < op.rows - first ? op.panel : op.rows - first;
  return {(layer * op.rows + first) / step_rows, n_rows / step_rows,
          static_cast<int64_t>(tile[0]) * height, static_cast<int64_t>(tile[1]) * width};
}

// Launch on the current device; they return a cudaError_t.
int stage(Form form, const Stage& op, void* stream);
int multiply(Form form, const Products& op, void* stream);
int merge(Form form, const Merge& op, void* stream);

}  // namespace panels
}  // namespace fastinn
