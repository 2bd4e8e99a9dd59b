// The next pivots of rrqr, as float32 sees them.

#pragma once

#include <cstdint>
#include <vector>

#include "rrqr_screen.h"

namespace recyclelora {

// Copies of the residuals of a few columns. What the next pivots will be is read off their Gram
// matrix; once those are known to the last digit, they bound the norms of the other candidates.
class Candidates {
 public:
  // Columns that the screen has brought up to date; their residuals begin at `row`.
  Candidates(const Screen& screen, std::vector<int64_t> columns, int64_t row);

  const std::vector<int64_t>& columns() const { return columns_; }

  // The columns that a greedy choice among these would take one after the other, up to `most` and
  // as long as their norms exceed `outside`.
  std::vector<int64_t> forecast(double outside, int64_t most) const;

  // Takes the first pivots out of all, which the block's reflections are of; once.
  void reflect(const Reflectors::Block& block);
  // No residual norm of the c-th column is above this after i of the reflections.
  double upper(int64_t i, int64_t c) const { return upper_[i * columns_.size() + c]; }

 private:
  const float* column(int64_t c) const { return copies_[c * lines_].values; }
  std::vector<float> gram() const;

  std::vector<int64_t> columns_;
  const int64_t first_, rows_;  // the residual's in the copies
  const int64_t lines_;
  double scale_;
  std::vector<double> slack_;
  std::vector<Line<float>> copies_;
  std::vector<double> upper_;
};

}  // namespace recyclelora
