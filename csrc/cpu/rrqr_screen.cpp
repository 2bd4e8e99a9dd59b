#include "rrqr_screen.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace recyclelora {
namespace {

constexpr int64_t kGroup = 6;  // columns of Q whose products with a tile fit in registers

typedef float Vector __attribute__((vector_size(64)));

// squares += (q'w)^2 for the columns w of a tile and q of a group.
RECYCLELORA_VECTOR_CLONES
void add_squared_products(const float* tile, const float* group, int64_t rows, float* squares) {
  Vector products[kGroup] = {};
  for (int64_t i = 0; i < rows; ++i) {
    const Vector w = *reinterpret_cast<const Vector*>(tile + i * 16);
    for (int64_t j = 0; j < kGroup; ++j) products[j] += w * group[i * kGroup + j];
  }
  Vector sum = *reinterpret_cast<const Vector*>(squares);
  for (int64_t j = 0; j < kGroup; ++j) sum += products[j] * products[j];
  *reinterpret_cast<Vector*>(squares) = sum;
}

// A power of two that brings a norm near one, so that no column vanishes in float32.
double scale_of(double norm) {
  int exponent = 0;
  std::frexp(norm, &exponent);
  return std::ldexp(1.0, std::clamp(-exponent, -1022, 1022));
}

}  // namespace

Screen::Screen(const Matrix& matrix, const std::vector<double>& norms)
    : rows_(matrix.rows()),
      cols_(matrix.cols()),
      tiles_((cols_ + kLanes - 1) / kLanes * rows_),
      scale_(cols_),
      squares_(cols_),
      slack_(cols_) {
  for (int64_t j = 0; j < cols_; ++j) set_norm(j, norms[j]);
  std::vector<double> row(cols_);
  for (int64_t i = 0; i < rows_; ++i) {
    matrix.read_rows(i, 1, row.data());
    for (int64_t j = 0; j < cols_; ++j) {
      tiles_[j / kLanes * rows_ + i].values[j % kLanes] = static_cast<float>(row[j] * scale_[j]);
    }
  }
}

// Rounding errors of sums of n products add up like sqrt(n) of them.
void Screen::set_norm(int64_t column, double norm) {
  scale_[column] = scale_of(norm);
  squares_[column] = std::pow(norm * scale_[column], 2);
  slack_[column] = 2 * std::sqrt(static_cast<double>(rows_)) *
                   std::numeric_limits<float>::epsilon() * squares_[column];
}

void Screen::renew(int64_t column, const double* residual, double norm) {
  set_norm(column, norm);
  for (int64_t i = first_row_; i < rows_; ++i) {
    tiles_[column / kLanes * rows_ + i].values[column % kLanes] =
        static_cast<float>(residual[i] * scale_[column]);
  }
}

void Screen::project_out(View<double> q) {
  const int64_t rows = rows_ - first_row_, groups = (q.cols + kGroup - 1) / kGroup;
  std::vector<float> grouped(groups * rows * kGroup);
  for (int64_t j = 0; j < q.cols; ++j) {
    float* const group = grouped.data() + j / kGroup * rows * kGroup + j % kGroup;
    for (int64_t i = 0; i < rows; ++i) group[i * kGroup] = static_cast<float>(q(first_row_ + i, j));
  }
  for (int64_t first = 0; first < cols_; first += kLanes) {
    Lanes sums{};
    for (int64_t group = 0; group < groups; ++group) {
      add_squared_products(tiles_[first / kLanes * rows_ + first_row_].values,
                           grouped.data() + group * rows * kGroup, rows, sums.values);
    }
    const int64_t count = std::min(kLanes, cols_ - first);
    for (int64_t j = 0; j < count; ++j) squares_[first + j] -= sums.values[j];
  }
}

double Screen::upper(int64_t column) const {
  return std::sqrt(std::max(squares_[column] + slack_[column], 0.0)) / scale_[column];
}

double Screen::lower(int64_t column) const {
  return std::sqrt(std::max(squares_[column] - slack_[column], 0.0)) / scale_[column];
}

}  // namespace recyclelora
