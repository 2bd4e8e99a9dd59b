#include "rrqr_screen.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <queue>

namespace recyclelora {
namespace {

// Bounds get another scale if the largest falls below this value, which is far above the square
// root of the least double. It is also the least scale of a column.
constexpr int kLeast = -400;

// A power of two that brings a norm near one, so that no column vanishes in float32.
double scale_of(double norm) {
  int exponent = 0;
  std::frexp(norm, &exponent);
  return std::ldexp(1.0, std::clamp(-exponent, -1022, 1022));
}

RECYCLELORA_VECTOR_CLONES
double sum_of_squares(const float* values, int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += values[i] * values[i];
  return sum;
}

}  // namespace

FloatReflections::FloatReflections(const Reflectors::Block& block) : size_(block.y.cols) {
  constexpr int64_t kLanes = Line<float>::kCount;
  const int64_t above = block.first % kLanes;
  lines_ = lines_of<float>(above + block.y.rows);
  y_.resize((size_ + kReadBeyond) * lines_);
  t_.resize(size_ * size_);
  for (int64_t j = 0; j < size_; ++j) {
    for (int64_t i = 0; i < block.y.rows; ++i) {
      y_[j * lines_ + (above + i) / kLanes].values[(above + i) % kLanes] = block.y(i, j);
    }
    for (int64_t i = 0; i <= j; ++i) t_[j * size_ + i] = block.t(i, j);
  }
}

void FloatReflections::apply(Line<float>* columns, int64_t lines) const {
  const ReflectionBlock<float> block{y_.data(), lines_, lines_, size_, t_.data()};
  reflect_columns(block, true, columns + (lines - lines_), lines);
}

Screen::Screen(const Matrix& matrix, const std::vector<double>& norms)
    : matrix_(matrix),
      rows_(matrix.rows()),
      cols_(matrix.cols()),
      lines_(lines_of<float>(rows_)),
      values_(groups_of(cols_) * kReflected * lines_),
      order_(cols_),
      place_(cols_),
      scale_(cols_),
      norms_(cols_),
      slack_(cols_),
      relative_(cols_),
      applied_(groups_of(cols_)) {
  arrange(norms);
  std::vector<double> column(rows_);
  for (int64_t j = 0; j < cols_; ++j) {
    matrix.read_column(j, column.data());
    float* const out = &at(0, j);
    for (int64_t i = 0; i < rows_; ++i) out[i] = static_cast<float>(column[i] * scale_[j]);
  }
}

void Screen::arrange(const std::vector<double>& norms) {
  std::iota(order_.begin(), order_.end(), 0);
  std::stable_sort(order_.begin(), order_.end(), [&](int64_t i, int64_t j) {
    return matrix_.unscaled(i, norms[i]) > matrix_.unscaled(j, norms[j]);
  });
  for (int64_t place = 0; place < cols_; ++place) place_[order_[place]] = place;
  for (int64_t j = 0; j < cols_; ++j) set_norm(j, norms[j]);
  set_reference(std::vector<char>(cols_));
}

void Screen::set_reference(const std::vector<char>& excluded) {
  int largest = std::numeric_limits<int>::min();
  for (int64_t j = 0; j < cols_; ++j) {
    if (!excluded[j] && upper(j) > 0) {
      largest = std::max(largest, matrix_.exponent(j) + std::ilogb(upper(j)));
    }
  }
  if (largest == std::numeric_limits<int>::min()) largest = 0;  // all columns are zero
  for (int64_t j = 0; j < cols_; ++j) {
    relative_[j] =
        std::ldexp(1.0, std::clamp(matrix_.exponent(j) - largest, 2 * kLeast, -2 * kLeast));
  }
  reference_ = std::ldexp(Wide{1}, largest);
}

// The rounding errors of n reflections add up to about sqrt(n) times one error.
void Screen::set_norm(int64_t column, double norm) {
  scale_[column] = scale_of(norm);
  norms_[column] = norm;
  slack_[column] =
      2 * std::sqrt(static_cast<double>(rows_)) * std::numeric_limits<float>::epsilon() * norm;
}

void Screen::begin_renewal(int64_t first_row) {
  row_ = first_row;
  reflections_.clear();
  std::fill(applied_.begin(), applied_.end(), 0);
}

void Screen::renew(int64_t column, const double* residual, double norm) {
  set_norm(column, norm);
  for (int64_t i = row_; i < rows_; ++i) {
    at(i, column) = static_cast<float>(residual[i] * scale_[column]);
  }
}

void Screen::reflect(const Reflectors::Block& block) {
  reflections_.emplace_back(block);
  row_ = block.first + block.y.cols;
}

void Screen::bring_up_to_date(int64_t group) {
  if (applied_[group] == reflections_.size()) return;
  for (size_t& next = applied_[group]; next < reflections_.size(); ++next) {
    reflections_[next].apply(&values_[group * kReflected * lines_], lines_);
  }
  for (int64_t place = group * kReflected; place < std::min((group + 1) * kReflected, cols_);
       ++place) {
    const int64_t j = order_[place];
    norms_[j] = std::sqrt(sum_of_squares(&at(row_, j), rows_ - row_)) / scale_[j];
  }
}

// The bounds of a group's columns.
template <typename Use>
void Screen::bounds_of(int64_t group, const std::vector<char>& excluded, const Use& use) const {
  const int64_t end = std::min((group + 1) * kReflected, cols_);
  for (int64_t place = group * kReflected; place < end; ++place) {
    const int64_t j = order_[place];
    if (!excluded[j]) use(relative(j, upper(j)));
  }
}

// The largest bound of each group that has one, in descending order.
std::vector<std::pair<double, int64_t>> Screen::largest_bounds(
    const std::vector<char>& excluded) const {
  std::vector<std::pair<double, int64_t>> bounds;
  for (int64_t group = 0; group < static_cast<int64_t>(applied_.size()); ++group) {
    double largest = -1;
    bounds_of(group, excluded, [&](double bound) { largest = std::max(largest, bound); });
    if (largest >= 0) bounds.emplace_back(largest, group);
  }
  std::sort(bounds.begin(), bounds.end(), std::greater<>());
  return bounds;
}

void Screen::sharpen(int64_t count, const std::vector<char>& excluded) {
  auto bounds = largest_bounds(excluded);
  if (!bounds.empty() && bounds.front().first < std::ldexp(1.0, kLeast)) {
    set_reference(excluded);
    bounds = largest_bounds(excluded);
  }
  std::priority_queue<double, std::vector<double>, std::greater<>> largest;  // count of them
  for (const auto& [bound, group] : bounds) {
    const bool full = static_cast<int64_t>(largest.size()) == count;
    if (full && bound < largest.top()) break;
    bring_up_to_date(group);
    bounds_of(group, excluded, [&](double renewed) {
      largest.push(renewed);
      if (static_cast<int64_t>(largest.size()) > count) largest.pop();
    });
  }
}

}  // namespace recyclelora
