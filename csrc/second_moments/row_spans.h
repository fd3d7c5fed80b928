// How threads share second moments: each takes a batch, or a span of its rows, with a result of its
// own, so that none reads what another has just written. Which spans there are depends on the shape
// alone, so the bits do not depend on the number of threads. CPU only; internal linkage: each
// instruction set keeps its own copy.
#pragma once

#include <omp.h>

#include <algorithm>

#include "common/buffer.h"
#include "common/failure.h"
#include "second_moments/result_tiles.h"
#include "second_moments/second_moments.h"

namespace fastinn {
namespace {

// A span has at least so many rows; to add up the results of fewer would take a share of the time.
constexpr int64_t kSpanRows = 8192;
constexpr int64_t kMostSpans = 4;
// What the results of all spans but the first may take.
constexpr int64_t kSpanBytes = int64_t{32} << 20;

// The same rows from `first_row` on, of one batch.
inline Rows rows_from(const Rows& rows, int64_t batch, int64_t first_row) {
  Rows part = rows;
  with_element(rows, [&](auto data) {
    part.data = data + batch * rows.batch_stride + first_row * rows.row_stride;
  });
  part.shift = rows.shift + batch * rows.n_features;
  return part;
}

class RowSpans {
 public:
  // Spans are whole chunks of rows, but for the last.
  RowSpans(const SecondMoments& op, int64_t chunk_rows)
      : op_(op),
        n_spans_(count(op)),
        n_rows_(ceil_div(ceil_div(op.n_rows, n_spans_), chunk_rows) * chunk_rows),
        others_(allocate<double>((n_spans_ - 1) * n_entries(op))) {}

  // Calls `function` with the products of each span of each batch. Where there are too few to keep
  // all threads busy, one comes after the other and the threads share its tiles.
  template <typename Function>
  void for_each(Function&& function) const {
    const int64_t n = op_.n_batches * n_spans_, n_threads = omp_get_max_threads();
    const auto call = [&](int64_t i) { function(part(i % op_.n_batches, i / op_.n_batches)); };
    if (n % n_threads == 0 || n >= 4 * n_threads) {
      Failure failure;
#pragma omp parallel for schedule(dynamic)
      for (int64_t i = 0; i < n; ++i) failure.watch([&] { call(i); });
      failure.rethrow();
    } else {  // not in a region of one thread: regions within a region start their threads anew
      for (int64_t i = 0; i < n; ++i) call(i);
    }
  }

  // Adds the other spans to the first, in their order; of symmetric products the lower triangle.
  void add_up() const {
    const int64_t n_lines = op_.n_batches * op_.left.n_features, width = op_.right.n_features;
#pragma omp parallel for schedule(static) if (n_spans_ > 1)
    for (int64_t line = 0; line < n_lines; ++line) {
      const int64_t n = op_.symmetric ? line % width + 1 : width;
      double* out = op_.out + line * width;
      for (int64_t span = 1; span < n_spans_; ++span) {
        const double* other = result(span) + line * width;
        for (int64_t j = 0; j < n; ++j) out[j] += other[j];
      }
    }
  }

 private:
  static int64_t n_entries(const SecondMoments& op) {
    return op.n_batches * op.left.n_features * op.right.n_features;
  }

  static int64_t count(const SecondMoments& op) {
    const int64_t bytes = n_entries(op) * static_cast<int64_t>(sizeof(double));
    const int64_t that_fit = 1 + kSpanBytes / std::max<int64_t>(bytes, 1);
    return std::max<int64_t>(1, std::min({kMostSpans, op.n_rows / kSpanRows, that_fit}));
  }

  double* result(int64_t span) const {
    return span == 0 ? op_.out : others_.get() + (span - 1) * n_entries(op_);
  }

  SecondMoments part(int64_t batch, int64_t span) const {
    SecondMoments part = op_;
    const int64_t first_row = span * n_rows_;
    part.n_batches = 1;
    part.n_rows = std::min(n_rows_, op_.n_rows - first_row);
    part.left = rows_from(op_.left, batch, first_row);
    if (!op_.symmetric) part.right = rows_from(op_.right, batch, first_row);
    part.root = op_.root + first_row;
    part.out = result(span) + batch * op_.left.n_features * op_.right.n_features;
    return part;
  }

  const SecondMoments& op_;
  int64_t n_spans_;
  int64_t n_rows_;  // of each but the last
  Buffer<double> others_;
};

}  // namespace
}  // namespace fastinn
