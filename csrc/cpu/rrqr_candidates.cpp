#include "rrqr_candidates.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace recyclelora {
namespace {

constexpr double kTie = 4 * std::numeric_limits<float>::epsilon();
// The Gram matrix is too inaccurate for residual squares below this share of the first pivot's.
constexpr double kLoss = 1e-3;
// A column with less than this share of the largest norm is left out of the forecast: it cannot
// precede the largest one, and products of its entries would be subnormal in float32, which is
// slow.
constexpr double kLeftOut = 0x1p-40;

}  // namespace

Candidates::Candidates(const Matrix& matrix, const Screen& screen, std::vector<int64_t> columns,
                       int64_t row)
    : columns_(std::move(columns)),
      first_(row % Line<float>::kCount),
      rows_(screen.lines() * Line<float>::kCount - row),
      lines_(screen.lines() - row / Line<float>::kCount),
      scale_(std::numeric_limits<Wide>::infinity()),
      copies_(groups_of(columns_.size()) * kReflected * lines_) {
  for (int64_t j : columns_) scale_ = std::min(scale_, screen.scale(j));
  Line<float>* out = copies_.data();
  for (int64_t j : columns_) {
    const float ratio = static_cast<float>(scale_ / screen.scale(j));
    const bool left_out = ratio < kLeftOut;
    const float scale = left_out ? 0 : ratio;
    slack_.push_back(matrix.unscaled(j, left_out ? screen.upper(j) : screen.slack(j)));
    const Line<float>* in = screen.column(j) + row / Line<float>::kCount;
    for (int64_t i = 0; i < lines_; ++i, ++in, ++out) {
      for (int64_t l = 0; l < Line<float>::kCount; ++l) {
        const bool above = i == 0 && l < first_;  // a row of R
        out->values[l] = above ? 0 : in->values[l] * scale;
      }
    }
  }
}

std::vector<float> Candidates::gram() const {
  const int64_t n = columns_.size(), rows = lines_ * Line<float>::kCount;
  std::vector<float> gram(n * n);
  const auto copies = column_major(column(0), rows, n, rows);
  multiply_add(column_major(gram.data(), n, n, n), 0, 1, copies.t(), copies);
  return gram;
}

std::vector<int64_t> Candidates::forecast(Wide outside, int64_t most) const {
  const int64_t n = columns_.size();
  const std::vector<float> gram = this->gram();
  std::vector<float> squares(n), r(most * n), row(n);
  for (int64_t c = 0; c < n; ++c) squares[c] = gram[c * n + c];
  const float least = std::pow(static_cast<double>(outside * scale_), 2);
  const float first = *std::max_element(squares.begin(), squares.end());
  std::vector<int64_t> pivots;
  for (int64_t i = 0; i < most; ++i) {
    const float largest = *std::max_element(squares.begin(), squares.end());
    if (largest <= std::max<float>(least, kLoss * first)) break;
    const int64_t p = std::find_if(squares.begin(), squares.end(),
                                   [&](float s) { return s >= (1 - kTie) * largest; }) -
                      squares.begin();
    std::copy_n(&gram[p * n], n, row.data());
    for (int64_t l = 0; l < i; ++l) {
      for (int64_t c = 0; c < n; ++c) row[c] -= r[l * n + p] * r[l * n + c];
    }
    const float diagonal = std::sqrt(squares[p]);
    for (int64_t c = 0; c < n; ++c) {
      r[i * n + c] = row[c] / diagonal;
      squares[c] -= r[i * n + c] * r[i * n + c];
    }
    squares[p] = -std::numeric_limits<float>::infinity();
    pivots.push_back(columns_[p]);
  }
  return pivots;
}

void Candidates::reflect(const Reflectors::Block& block) {
  const FloatReflections reflections(block);
  const int64_t n = columns_.size(), size = block.y.cols, end = first_ + size;
  for (int64_t c = 0; c < n; c += kReflected) reflections.apply(&copies_[c * lines_], lines_);
  upper_.resize(size * n);
  for (int64_t c = 0; c < n; ++c) {
    const float* const values = column(c);
    double squares = 0;
    for (int64_t i = end; i < first_ + rows_; ++i) squares += double(values[i]) * values[i];
    for (int64_t i = size - 1; i >= 0; --i) {
      squares += double(values[first_ + i]) * values[first_ + i];
      upper_[i * n + c] = std::sqrt(squares) / scale_ + slack_[c];
    }
  }
}

}  // namespace recyclelora
