#include "rrqr_reflectors.h"

#include <algorithm>
#include <cmath>

namespace recyclelora {

Reflectors::Reflectors(int64_t rows, int64_t capacity) : rows_(rows), y_(rows * capacity) {
  tau_.reserve(capacity);
}

double Reflectors::append(const double* x) {
  const int64_t i = count();
  double* y = y_.data() + i * rows_;
  double tail = 0;
  for (int64_t row = i + 1; row < rows_; ++row) tail += x[row] * x[row];
  y[i] = 1;
  if (tail == 0) {  // nothing to map: H_i = I
    tau_.push_back(0);
    return x[i];
  }
  // The sign that adds magnitudes, so that nothing cancels.
  const double beta = -std::copysign(std::sqrt(x[i] * x[i] + tail), x[i]);
  const double scale = 1 / (x[i] - beta);
  for (int64_t row = i + 1; row < rows_; ++row) y[row] = x[row] * scale;
  tau_.push_back((beta - x[i]) / beta);
  return beta;
}

View<double> Reflectors::y(const Panel& panel) const {
  const auto all = column_major(const_cast<double*>(y_.data()), rows_, count(), rows_);
  return all.block(panel.first, panel.first, rows_ - panel.first, panel.size);
}

void Reflectors::close_panel(int64_t earliest) {
  int64_t first = panels_.empty() ? 0 : panels_.back().first + panels_.back().size;
  if (count() == first) return;
  if (!panels_.empty() && panels_.back().first >= earliest &&
      count() - panels_.back().first <= kPanel) {
    first = panels_.back().first;
    panels_.pop_back();
  }
  const int64_t n = count() - first;
  Panel panel{first, n, std::vector<double>(n * n)};
  // (I - Y T Y')(I - tau y y') = I - [Y y] [T, -tau T Y'y; 0, tau] [Y y]'.
  std::vector<double> products(n * n);
  const auto gram = column_major(products.data(), n, n, n);
  multiply_add(gram, 0, 1, y(panel).t(), y(panel));
  const auto t = column_major(panel.t.data(), n, n, n);
  for (int64_t j = 0; j < n; ++j) {
    const double tau = tau_[first + j];
    for (int64_t i = 0; i < j; ++i) {
      double sum = 0;
      for (int64_t l = i; l < j; ++l) sum += t(i, l) * gram(l, j);
      t(i, j) = -tau * sum;
    }
    t(j, j) = tau;
  }
  panels_.push_back(std::move(panel));
}

void Reflectors::apply_panel(const Panel& panel, View<double> c, bool transposed) const {
  const int64_t n = panel.size;
  std::vector<double> products(2 * n * c.cols);
  const auto first = column_major(products.data(), n, c.cols, n);
  const auto second = column_major(products.data() + n * c.cols, n, c.cols, n);
  const auto t = column_major(const_cast<double*>(panel.t.data()), n, n, n);
  const auto below = c.block(panel.first, 0, rows_ - panel.first, c.cols);
  multiply_add(first, 0, 1, y(panel).t(), below);
  multiply_add(second, 0, 1, transposed ? t.t() : t, first);
  multiply_add(below, 1, -1, y(panel), second);
}

void Reflectors::apply_transposed(View<double> c, int64_t first) const {
  for (const Panel& panel : panels_) {
    if (panel.first >= first) apply_panel(panel, c, true);
  }
}

void Reflectors::apply(View<double> c, int64_t first) const {
  for (auto panel = panels_.rbegin(); panel != panels_.rend() && panel->first >= first; ++panel) {
    apply_panel(*panel, c, false);
  }
}

RECYCLELORA_VECTOR_CLONES
double reflect(const double* y, double tau, double* x, int64_t n) {
  double product = 0;
#pragma omp simd reduction(+ : product)
  for (int64_t i = 0; i < n; ++i) product += y[i] * x[i];
  const double step = tau * product;
  x[0] -= step;
  double squares = 0;
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 1; i < n; ++i) {
    x[i] -= step * y[i];
    squares += x[i] * x[i];
  }
  return squares;
}

}  // namespace recyclelora
