#include "rrqr_reflectors.h"

#include <algorithm>
#include <cmath>

#include "../interruption.h"

namespace recyclelora {
namespace {

constexpr double kTiny = 0x1p-900;  // below this sum of squares, some squares may be subnormal

// Of values times unit.
double sum_of_squares(const double* values, int64_t n, double unit) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += (values[i] * unit) * (values[i] * unit);
  return sum;
}

// A power of two that brings the largest magnitude near one.
double unit_of(const double* values, int64_t n) {
  double largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(values[i]));
  int exponent = 0;
  std::frexp(largest, &exponent);
  return std::ldexp(1.0, std::min(-exponent, 1022));
}

}  // namespace

Reflectors::Reflectors(int64_t rows, int64_t capacity)
    : rows_(rows), y_(rows, capacity + kReadBeyond) {
  tau_.reserve(capacity);
}

double Reflectors::append(const double* x) {
  const int64_t i = count();
  double* y = y_.column(i);
  double unit = 1, tail = sum_of_squares(x + i + 1, rows_ - i - 1, unit);
  if (x[i] * x[i] + tail < kTiny) {
    unit = unit_of(x + i, rows_ - i);
    tail = sum_of_squares(x + i + 1, rows_ - i - 1, unit);
  }
  const double head = x[i] * unit;
  y[i] = 1;
  if (tail == 0) {  // nothing to map: H_i = I
    std::fill(y + i + 1, y + rows_, 0.0);
    tau_.push_back(0);
    return x[i];
  }
  // With this sign, magnitudes are added, so there is no cancellation.
  const double beta = -std::copysign(std::sqrt(head * head + tail), head);
  const double scale = 1 / (head - beta);
  for (int64_t row = i + 1; row < rows_; ++row) y[row] = x[row] * unit * scale;
  tau_.push_back((beta - head) / beta);
  return beta / unit;
}

View<const double> Reflectors::y(const Panel& panel) const {
  return column_major(y_.column(panel.first) + panel.first, rows_ - panel.first, panel.size,
                      y_.stride());
}

void Reflectors::close_panel() {
  const int64_t first = panels_.empty() ? 0 : panels_.back().first + panels_.back().size;
  const int64_t n_new = count() - first;
  if (n_new == 0) return;
  Panel panel{first, 0, {}};
  if (!panels_.empty() && count() - panels_.back().first <= kMostReflections) {
    panel = std::move(panels_.back());
    panels_.pop_back();
  }
  const int64_t n_old = panel.size, n = panel.size = n_old + n_new;
  const std::vector<double> old = std::move(panel.t);
  panel.t.assign(n * n, 0);
  const auto t = column_major(panel.t.data(), n, n, n);
  for (int64_t j = 0; j < n_old; ++j) std::copy_n(&old[j * n_old], n_old, t.column(j));
  // (I - Y T Y')(I - tau y y') = I - [Y y] [T, -tau T Y'y; 0, tau] [Y y]'.
  std::vector<double> products(n * n_new);
  const auto gram = column_major(products.data(), n, n_new, n);
  const View<const double> y = this->y(panel);
  multiply_add(gram, 0, 1, y.t(), y.block(0, n_old, y.rows, n_new));
  for (int64_t j = n_old; j < n; ++j) {
    const double tau = tau_[panel.first + j];
    for (int64_t l = 0; l < j; ++l) {
      const double factor = -tau * gram(l, j - n_old);
      for (int64_t i = 0; i <= l; ++i) t(i, j) += factor * t(i, l);
    }
    t(j, j) = tau;
  }
  panels_.push_back(std::move(panel));
}

void Reflectors::truncate(int64_t first) {
  tau_.resize(first);
  while (!panels_.empty() && panels_.back().first >= first) panels_.pop_back();
  if (panels_.empty() || panels_.back().first + panels_.back().size <= first) return;
  // T of fewer reflections is the upper left part of T.
  Panel& panel = panels_.back();
  const int64_t n = first - panel.first;
  for (int64_t j = 0; j < n; ++j) std::copy_n(&panel.t[j * panel.size], n, &panel.t[j * n]);
  panel.size = n;
  panel.t.resize(n * n);
}

void Reflectors::apply_panel(const Panel& panel, bool transposed, Columns* c) const {
  const int64_t line = panel.first / Line<double>::kCount;
  const ReflectionBlock<double> block{y_.data() + panel.first * y_.lines() + line, y_.lines(),
                                      y_.lines() - line, panel.size, panel.t.data()};
  for (int64_t j = 0; j < c->count(); j += kReflected) {
    reflect_columns(block, transposed, c->data() + j * c->lines() + line, c->lines());
  }
}

void Reflectors::apply_transposed(Columns* c) const {
  for (const Panel& panel : panels_) {
    check_interruption();
    apply_panel(panel, true, c);
  }
}

void Reflectors::apply(Columns* c) const {
  for (auto panel = panels_.rbegin(); panel != panels_.rend(); ++panel) {
    check_interruption();
    apply_panel(*panel, false, c);
  }
}

std::vector<Reflectors::Block> Reflectors::blocks(int64_t first) const {
  std::vector<Block> blocks;
  for (const Panel& panel : panels_) {
    const int64_t skip = std::max<int64_t>(first - panel.first, 0), n = panel.size - skip;
    if (n <= 0) continue;
    const View<const double> y = this->y(panel);
    const auto t = column_major(panel.t.data(), panel.size, panel.size, panel.size);
    blocks.push_back(
        {panel.first + skip, y.block(skip, skip, y.rows - skip, n), t.block(skip, skip, n, n)});
  }
  return blocks;
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
