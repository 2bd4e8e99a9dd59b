// Prediction of the next pivots of rrqr in float32.

#pragma once

#include <cstdint>
#include <vector>

#include "rrqr_screen.h"

namespace recyclelora {

// Copies of the residuals of a few columns, in one scale. Their Gram matrix predicts the next
// pivots. After the pivots are known in float64, they bound the norms of the other candidates. All
// norms are those of columns of W.
class Candidates {
 public:
  // The screen has updated these columns. Their residuals begin at `row`.
  Candidates(const Matrix& matrix, const Screen& screen, std::vector<int64_t> columns, int64_t row);

  const std::vector<int64_t>& columns() const { return columns_; }

  // Returns the pivots of a greedy choice among the candidates, in order: at most `most`, and only
  // while their norms exceed `outside`.
  std::vector<int64_t> forecast(Wide outside, int64_t most) const;

  // Removes the first pivots, to which the block's reflections belong, from all candidates. May be
  // called once.
  void reflect(const Reflectors::Block& block);
  // Upper bound of the residual norm of column c after i reflections.
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
