// The next pivots of rrqr, as float32 sees them.

#pragma once

#include <cstdint>
#include <vector>

#include "rrqr_screen.h"

namespace recyclelora {

// Copies of the residuals of a few columns, all under one scale. What the next pivots will be is
// read off their Gram matrix; once those are known to the last digit, they bound the norms of the
// other candidates. All norms are those of W.
class Candidates {
 public:
  // Columns that the screen has brought up to date; their residuals begin at `row`.
  Candidates(const Matrix& matrix, const Screen& screen, std::vector<int64_t> columns, int64_t row);

  const std::vector<int64_t>& columns() const { return columns_; }

  // The columns that a greedy choice among these would take one after the other, up to `most` and
  // as long as their norms exceed `outside`.
  std::vector<int64_t> forecast(Wide outside, int64_t most) const;

  // Takes the first pivots out of all, which the block's reflections are of; once.
  void reflect(const Reflectors::Block& block);
  // No residual norm of the c-th column is above this after i of the reflections.
  Wide upper(int64_t i, int64_t c) const { return upper_[i * columns_.size() + c]; }

 private:
  const float* column(int64_t c) const { return copies_[c * lines_].values; }
  std::vector<float> gram() const;

  std::vector<int64_t> columns_;
  const int64_t first_, rows_;  // the residual's in the copies
  const int64_t lines_;
  Wide scale_;  // the copies are W's columns times this
  std::vector<Wide> slack_;
  std::vector<Line<float>> copies_;
  std::vector<Wide> upper_;
};

}  // namespace recyclelora
