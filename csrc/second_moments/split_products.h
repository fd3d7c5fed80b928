// Products of rows split into two bfloat16 parts, on the matrix tiles of AMX; internal linkage: see
// vector_math.h.
//
// With a = h + l the product is h'h + h'l + l'h + l'l. The last term is rounding noise (1e-7 of a
// correlation) except where two columns agree to three digits or more: there it is 4e-6. The parts
// leave 2^-17 of an entry, which averages out over rows, but not in the squares of columns that a
// few rows make up. So the diagonal of symmetric products is summed apart.
#pragma once

#include "common/amx.h"

#if defined(__AMX_BF16__)

#include <cstring>
#include <vector>

#include "second_moments/result_tiles.h"
#include "second_moments/row_spans.h"

namespace fastinn {
namespace {

// The rounding of fewer rows does not average out.
constexpr int64_t kLeastSplitRows = 1024;
// Rows that are split at a time, and whose products are summed in float32 before they are added up
// in float64: as many as two panels leave room for in the second-level cache.
constexpr int64_t kSplitRows = 1024;
// Columns of a panel: two matrix tiles.
constexpr int64_t kSplitPanel = 2 * kTileRows;
constexpr int64_t kLineBytes = 64;

using Pairs = uint32_t;

// Panels of one side for one chunk of rows. A panel holds, step by step, both tiles of the high
// parts and then those of the low parts, unless there are none.
struct SplitPanels {
  Buffer<Pairs> data;
  int64_t n_panels;
  int64_t most_steps;
  int64_t n_parts;

  int64_t step_size() const { return n_parts * 2 * kTilePairs; }
  Pairs* at(int64_t panel, int64_t step) const {
    return data.get() + (panel * most_steps + step) * step_size();
  }
};

SplitPanels allocate_split_panels(const SecondMoments& op, const Rows& rows) {
  SplitPanels panels{nullptr, ceil_div(rows.n_features, kSplitPanel),
                     ceil_div(std::min(kSplitRows, op.n_rows), kTileDepth),
                     op.round_bfloat16 ? 1 : 2};
  panels.data = allocate<Pairs>(panels.n_panels * panels.most_steps * panels.step_size());
  return panels;
}

// Where the entries of one step of one panel are.
struct Block {
  int64_t first_row;
  int64_t n_rows;
  int64_t first_column;
  int64_t n_columns;
};

using Values = float[kTileDepth][kSplitPanel];

// Whether shifting in float32 rounds as shifting in float64 does, and no row is weighted.
bool is_plain(const SecondMoments& op, const Rows& rows) {
  const auto one = [](double root) { return root == 1; };
  const auto short_enough = [](double shift) { return static_cast<float>(shift) == shift; };
  return rows.element != Element::float64 && std::all_of(op.root, op.root + op.n_rows, one) &&
         std::all_of(rows.shift, rows.shift + rows.n_features, short_enough);
}

template <bool plain, typename S>
void read_row(const S* __restrict row, int64_t column_stride, const double* __restrict shift,
              const float* __restrict short_shift, double root, int64_t n_columns,
              float* __restrict values) {
  for (int64_t j = 0; j < n_columns; ++j) {
    const auto wide = widen(row[j * column_stride]);
    values[j] = plain ? static_cast<float>(wide) - short_shift[j]
                      : static_cast<float>((static_cast<double>(wide) - shift[j]) * root);
  }
}

// Reads a block, shifted and weighted, and fills it up with zeros.
template <bool plain, typename S>
void read_block(const SecondMoments& op, const Rows& rows, const S* data, const Block& block,
                Values& values) {
  const double* shift = rows.shift + block.first_column;
  float short_shift[kSplitPanel];
  for (int64_t j = 0; j < block.n_columns; ++j) short_shift[j] = static_cast<float>(shift[j]);
  if (block.n_rows < kTileDepth || block.n_columns < kSplitPanel)
    std::memset(values, 0, sizeof values);
  const S* first =
      data + block.first_row * rows.row_stride + block.first_column * rows.column_stride;
  for (int64_t i = 0; i < block.n_rows; ++i) {
    const S* row = first + i * rows.row_stride;
    const double root = op.root[block.first_row + i];
    // Of the next step, whose rows are too far apart for the processor to guess.
    for (int64_t j = 0; j < kSplitPanel; j += 64 / static_cast<int64_t>(sizeof(S)))
      __builtin_prefetch(row + kTileDepth * rows.row_stride + j, 0, 2);
    if (rows.column_stride == 1 && block.n_columns == kSplitPanel)  // constants make loops fast
      read_row<plain>(row, 1, shift, short_shift, root, kSplitPanel, values[i]);
    else
      read_row<plain>(row, rows.column_stride, shift, short_shift, root, block.n_columns,
                      values[i]);
  }
}

// Rounds to bfloat16, to nearest, ties to even, in the upper half of the bits. NaN stays NaN: the
// sum could carry one whose payload is all ones into a zero.
inline __m512i rounded_bits(__m512 values) {
  const __m512i bits = _mm512_castps_si512(values);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 is_nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(rounded, is_nan, bits, _mm512_set1_epi32(0x00400000));
}

inline __m512 upper_half(__m512i bits) {
  return _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(0xffff0000)));
}

inline __m512i paired(__m512i even, __m512i odd) {
  return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(even, 16), odd);
}

// What splitting 16 columns of a block gives besides their parts.
struct SplitColumns {
  __m512 squares;
  __m512i low_bits;
};

// Writes both parts of 16 columns as tiles of the right side, and of the left where asked.
template <bool split>
SplitColumns split_columns(const float* values, Pairs* right, Pairs* left) {
  __m512i high[kTileRows], low[kTileRows];
  SplitColumns found{_mm512_setzero_ps(), _mm512_setzero_si512()};
  for (int64_t i = 0; i < kTileRows; ++i) {
    const __m512 even = _mm512_load_ps(values + 2 * i * kSplitPanel);
    const __m512 odd = _mm512_load_ps(values + (2 * i + 1) * kSplitPanel);
    const __m512i even_bits = rounded_bits(even), odd_bits = rounded_bits(odd);
    const __m512 even_high = upper_half(even_bits), odd_high = upper_half(odd_bits);
    high[i] = paired(even_bits, odd_bits);
    const __m512 a = split ? even : even_high, b = split ? odd : odd_high;
    found.squares = _mm512_fmadd_ps(b, b, _mm512_fmadd_ps(a, a, found.squares));
    if constexpr (split) {
      low[i] = paired(rounded_bits(_mm512_sub_ps(even, even_high)),
                      rounded_bits(_mm512_sub_ps(odd, odd_high)));
      found.low_bits = _mm512_or_si512(found.low_bits, low[i]);
    }
  }
  constexpr int64_t to_low = 2 * kTilePairs;
  if (right)
    for (int64_t i = 0; i < kTileRows; ++i) {
      _mm512_store_si512(right + 16 * i, high[i]);
      if constexpr (split) _mm512_store_si512(right + to_low + 16 * i, low[i]);
    }
  if (left) {
    transpose(high, left);
    if constexpr (split) transpose(low, left + to_low);
  }
  return found;
}

// What splitting a chunk of rows gives besides their parts.
struct SplitChunk {
  bool has_low;
  std::vector<float> squares;  // step by step, of whole panels
};

// Splits the rows into the panels of one side, or of both.
template <bool plain, typename S>
SplitChunk split_rows(const SecondMoments& op, const Rows& rows, const S* data, int64_t first_row,
                      int64_t n_rows, const SplitPanels* right, const SplitPanels* left) {
  const SplitPanels& shape = right ? *right : *left;
  const int64_t n_steps = ceil_div(n_rows, kTileDepth), width = shape.n_panels * kSplitPanel;
  SplitChunk chunk{false, std::vector<float>(n_steps * width)};
  bool has_low = false;
#pragma omp parallel for schedule(static) reduction(|| : has_low)
  for (int64_t step = 0; step < n_steps; ++step)
    for (int64_t panel = 0; panel < shape.n_panels; ++panel) {
      const int64_t row = step * kTileDepth, column = panel * kSplitPanel;
      const Block block{first_row + row, std::min(kTileDepth, n_rows - row), column,
                        std::min(kSplitPanel, rows.n_features - column)};
      alignas(64) Values values;
      read_block<plain>(op, rows, data, block, values);
      float* squares = chunk.squares.data() + step * width + column;
      for (int64_t half = 0; half < 2; ++half) {
        Pairs* r = right ? right->at(panel, step) + half * kTilePairs : nullptr;
        Pairs* l = left ? left->at(panel, step) + half * kTilePairs : nullptr;
        const float* columns = values[0] + half * kTileRows;
        const SplitColumns found = op.round_bfloat16 ? split_columns<false>(columns, r, l)
                                                     : split_columns<true>(columns, r, l);
        _mm512_storeu_ps(squares + half * kTileRows, found.squares);
        has_low = has_low || _mm512_test_epi32_mask(found.low_bits, found.low_bits) != 0;
      }
    }
  chunk.has_low = has_low;
  return chunk;
}

SplitChunk split_chunk(const SecondMoments& op, const Rows& rows, int64_t first_row, int64_t n_rows,
                       bool plain, const SplitPanels* right, const SplitPanels* left) {
  SplitChunk chunk;
  with_element(rows, [&](auto data) {
    chunk = plain ? split_rows<true>(op, rows, data, first_row, n_rows, right, left)
                  : split_rows<false>(op, rows, data, first_row, n_rows, right, left);
  });
  return chunk;
}

// Which parts there are products of.
struct Parts {
  bool left_low;
  bool right_low;
};

// What the second-level cache is asked for step by step while two panels are multiplied, because
// the third is far slower than the products: a share of the next panel of the right side, and the
// rows of the result that the products are added to.
struct Ahead {
  const char* lines;
  int64_t n_lines;  // a step
  const double* out;
  int64_t out_stride;

  void step() {
    for (int64_t i = 0; i < n_lines; ++i, lines += kLineBytes) __builtin_prefetch(lines, 0, 2);
    constexpr int64_t doubles = kLineBytes / sizeof(double);
    for (int64_t j = 0; j < kSplitPanel; j += doubles) __builtin_prefetch(out + j, 1, 2);
    out += out_stride;
  }
};

// Sums the products of two panels, tile by tile; low parts come after the high ones, two tiles on.
// Four sums fit beside two tiles of each side.
inline void multiply_panels(const Pairs* left, const Pairs* right, int64_t step_size,
                            int64_t n_steps, Parts parts, Ahead ahead, float* products) {
  constexpr int row_bytes = 64;
  constexpr int64_t to_low = 2 * kTilePairs;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  finish_stores();
  const auto add = [] {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  };
  for (int64_t step = 0; step < n_steps; ++step, left += step_size, right += step_size) {
    ahead.step();
    _tile_loadd(4, left, row_bytes);
    _tile_loadd(6, right, row_bytes);
    _tile_loadd(7, right + kTilePairs, row_bytes);
    _tile_loadd(5, left + kTilePairs, row_bytes);
    add();
    if (parts.right_low) {
      _tile_loadd(6, right + to_low, row_bytes);
      _tile_loadd(7, right + to_low + kTilePairs, row_bytes);
      add();
    }
    if (parts.left_low) {
      _tile_loadd(4, left + to_low, row_bytes);
      _tile_loadd(5, left + to_low + kTilePairs, row_bytes);
      add();
      if (parts.right_low) {
        _tile_loadd(6, right, row_bytes);
        _tile_loadd(7, right + kTilePairs, row_bytes);
        add();
      }
    }
  }
  constexpr int stride = kSplitPanel * sizeof(float);
  _tile_stored(0, products, stride);
  _tile_stored(1, products + kTileRows, stride);
  _tile_stored(2, products + kTileRows * kSplitPanel, stride);
  _tile_stored(3, products + kTileRows * kSplitPanel + kTileRows, stride);
}

// Adds the products of two panels to a block of the result, or writes them where nothing is yet.
inline void promote(const float* products, int64_t n_rows, int64_t n_columns, bool first,
                    double* out, int64_t stride) {
  for (int64_t i = 0; i < n_rows; ++i, out += stride, products += kSplitPanel)
    if (first)
      std::copy(products, products + n_columns, out);
    else if (n_columns == kSplitPanel)  // constants make the loop fast
      for (int64_t j = 0; j < kSplitPanel; ++j) out[j] += products[j];
    else
      for (int64_t j = 0; j < n_columns; ++j) out[j] += products[j];
}

// Adds the products of a chunk to a tile of the result. Panels above the diagonal of a symmetric
// product are left out.
void add_chunk(const SecondMoments& op, const Tile& tile, const SplitPanels& left,
               const SplitPanels& right, int64_t n_steps, Parts parts, bool first) {
  alignas(64) float products[kSplitPanel * kSplitPanel];
  const int64_t width = op.right.n_features;
  const WholeTiles tiles;
  for (int64_t j = tile.left; j < tile.right; j += kSplitPanel) {
    const Pairs* of_right = right.at(j / kSplitPanel, 0);
    const int64_t top = op.symmetric ? std::max(tile.top, j) : tile.top;
    const int64_t panel_lines = right.step_size() * sizeof(Pairs) / kLineBytes;
    const int64_t n_lines = ceil_div(panel_lines, ceil_div(tile.bottom - top, kSplitPanel));
    Ahead ahead{reinterpret_cast<const char*>(right.at(j / kSplitPanel + 1, 0)), n_lines, nullptr,
                width};
    for (int64_t i = top; i < tile.bottom; i += kSplitPanel) {
      double* out = op.out + i * width + j;
      ahead.out = out;
      multiply_panels(left.at(i / kSplitPanel, 0), of_right, left.step_size(), n_steps, parts,
                      ahead, products);
      ahead.lines += n_steps * n_lines * kLineBytes;
      promote(products, std::min(kSplitPanel, tile.bottom - i),
              std::min(kSplitPanel, tile.right - j), first, out, width);
    }
  }
}

// Adds the squares of a chunk, step after step.
void add_squares(const SplitChunk& chunk, std::vector<double>& squares) {
  for (size_t first = 0; first < chunk.squares.size(); first += squares.size())
    for (size_t i = 0; i < squares.size(); ++i) squares[i] += chunk.squares[first + i];
}

void write_diagonal(const SecondMoments& op, const std::vector<double>& squares) {
  const int64_t width = op.left.n_features;
  for (int64_t i = 0; i < width; ++i) op.out[i * width + i] = squares[i];
}

// Writes the products of one batch, chunk after chunk; of symmetric ones the lower triangle.
void write_products(const SecondMoments& op) {
  const SplitPanels left = allocate_split_panels(op, op.left);
  const SplitPanels right = allocate_split_panels(op, op.symmetric ? op.left : op.right);
  std::vector<double> squares(left.n_panels * kSplitPanel);
  const bool plain_left = is_plain(op, op.left);
  const bool plain_right = !op.symmetric && is_plain(op, op.right);
  for (int64_t row = 0; row < op.n_rows; row += kSplitRows) {
    const int64_t n_rows = std::min(kSplitRows, op.n_rows - row);
    const SplitChunk chunk =
        split_chunk(op, op.left, row, n_rows, plain_left, op.symmetric ? &right : nullptr, &left);
    Parts parts{chunk.has_low, chunk.has_low};
    if (op.symmetric)
      add_squares(chunk, squares);
    else
      parts.right_low =
          split_chunk(op, op.right, row, n_rows, plain_right, &right, nullptr).has_low;
    for_each_tile(op, [&](const Tile& tile) {
      add_chunk(op, tile, left, right, ceil_div(n_rows, kTileDepth), parts, row == 0);
    });
  }
  if (op.symmetric) write_diagonal(op, squares);
}

void split_products(const SecondMoments& op) {
  const RowSpans spans(op, kSplitRows);
  spans.for_each([&](const SecondMoments& part) { write_products(part); });
  spans.add_up();
  if (op.symmetric) for_each_tile(op, [&](const Tile& tile) { mirror(op, tile); });
}

}  // namespace
}  // namespace fastinn

#endif
