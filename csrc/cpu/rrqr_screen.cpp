#include "rrqr_screen.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <queue>
#include <utility>

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
      order_(cols_),
      place_(cols_),
      scale_(cols_),
      squares_(cols_),
      slack_(cols_),
      applied_((cols_ + kLanes - 1) / kLanes) {
  arrange(norms);
  std::vector<double> row(cols_);
  for (int64_t i = 0; i < rows_; ++i) {
    matrix.read_rows(i, 1, row.data());
    set_row(i, row.data());
  }
}

void Screen::arrange(const std::vector<double>& norms) {
  std::iota(order_.begin(), order_.end(), 0);
  std::stable_sort(order_.begin(), order_.end(),
                   [&](int64_t i, int64_t j) { return norms[i] > norms[j]; });
  for (int64_t place = 0; place < cols_; ++place) place_[order_[place]] = place;
  for (int64_t j = 0; j < cols_; ++j) set_norm(j, norms[j]);
}

void Screen::set_row(int64_t i, const double* values) {
  for (int64_t place = 0; place < cols_; ++place) {
    const int64_t j = order_[place];
    tiles_[place / kLanes * rows_ + i].values[place % kLanes] =
        static_cast<float>(values[j] * scale_[j]);
  }
}

// Rounding errors of sums of n products add up like sqrt(n) of them.
void Screen::set_norm(int64_t column, double norm) {
  scale_[column] = scale_of(norm);
  squares_[column] = std::pow(norm * scale_[column], 2);
  slack_[column] = 2 * std::sqrt(static_cast<double>(rows_)) *
                   std::numeric_limits<float>::epsilon() * squares_[column];
}

void Screen::begin_renewal(int64_t first_row) {
  first_row_ = first_row;
  q_.clear();
  groups_ = 0;
  std::fill(applied_.begin(), applied_.end(), 0);
}

void Screen::renew(int64_t column, const double* residual, double norm) {
  set_norm(column, norm);
  Lanes* const tile = &tiles_[place_[column] / kLanes * rows_];
  for (int64_t i = first_row_; i < rows_; ++i) {
    tile[i].values[place_[column] % kLanes] = static_cast<float>(residual[i] * scale_[column]);
  }
}

void Screen::project_out(View<double> q) {
  const int64_t rows = rows_ - first_row_, before = groups_;
  groups_ += (q.cols + kGroup - 1) / kGroup;
  q_.resize(groups_ * rows * kGroup);  // zero where the last group is not full
  for (int64_t j = 0; j < q.cols; ++j) {
    float* const group = q_.data() + (before + j / kGroup) * rows * kGroup + j % kGroup;
    for (int64_t i = 0; i < rows; ++i) group[i * kGroup] = static_cast<float>(q(first_row_ + i, j));
  }
}

void Screen::bring_up_to_date(int64_t tile) {
  const int64_t rows = rows_ - first_row_;
  Lanes sums{};
  for (int64_t& group = applied_[tile]; group < groups_; ++group) {
    add_squared_products(tiles_[tile * rows_ + first_row_].values,
                         q_.data() + group * rows * kGroup, rows, sums.values);
  }
  for (int64_t place = tile * kLanes; place < std::min((tile + 1) * kLanes, cols_); ++place) {
    squares_[order_[place]] -= sums.values[place % kLanes];
  }
}

void Screen::sharpen(int64_t count, const std::vector<char>& excluded) {
  const int64_t tiles = applied_.size();
  const auto columns_of = [&](int64_t tile, const auto& use) {
    for (int64_t place = tile * kLanes; place < std::min((tile + 1) * kLanes, cols_); ++place) {
      if (!excluded[order_[place]]) use(upper(order_[place]));
    }
  };
  std::vector<std::pair<double, int64_t>> bounds;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    double largest = -1;
    columns_of(tile, [&](double bound) { largest = std::max(largest, bound); });
    bounds.emplace_back(largest, tile);
  }
  std::sort(bounds.begin(), bounds.end(), std::greater<>());
  std::priority_queue<double, std::vector<double>, std::greater<>> largest;  // count of them
  for (const auto& [bound, tile] : bounds) {
    const bool full = static_cast<int64_t>(largest.size()) == count;
    if (full && bound < largest.top()) break;
    bring_up_to_date(tile);
    columns_of(tile, [&](double renewed) {
      largest.push(renewed);
      if (static_cast<int64_t>(largest.size()) > count) largest.pop();
    });
  }
}

double Screen::upper(int64_t column) const {
  return std::sqrt(std::max(squares_[column] + slack_[column], 0.0)) / scale_[column];
}

double Screen::lower(int64_t column) const {
  return std::sqrt(std::max(squares_[column] - slack_[column], 0.0)) / scale_[column];
}

}  // namespace recyclelora
