#include "triangular.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace recyclelora {
namespace {

constexpr int64_t kBlock = 64;

// Solve for one right-hand side at a time, for a small l.
RECYCLELORA_VECTOR_CLONES
void solve_small(View<double> l, View<double> x) {
  for (int64_t column = 0; column < x.cols; ++column) {
    double* const values = x.column(column);
    for (int64_t j = 0; j < l.rows; ++j) {
      const double* const factors = l.column(j);
      const double value = values[j] /= factors[j];
#pragma omp simd
      for (int64_t i = j + 1; i < l.rows; ++i) values[i] -= value * factors[i];
    }
  }
}

RECYCLELORA_VECTOR_CLONES
void solve_small_transposed(View<double> l, View<double> x) {
  for (int64_t column = 0; column < x.cols; ++column) {
    double* const values = x.column(column);
    for (int64_t j = l.rows - 1; j >= 0; --j) {
      const double* const factors = l.column(j);
      double sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = j + 1; i < l.rows; ++i) sum += factors[i] * values[i];
      values[j] = (values[j] - sum) / factors[j];
    }
  }
}

void cholesky_small(View<double> g) {
  for (int64_t j = 0; j < g.rows; ++j) {
    for (int64_t l = 0; l < j; ++l) {
      for (int64_t i = j; i < g.rows; ++i) g(i, j) -= g(i, l) * g(j, l);
    }
    const double diagonal = std::sqrt(g(j, j));
    for (int64_t i = j; i < g.rows; ++i) g(i, j) /= diagonal;
  }
}

}  // namespace

void solve_lower(View<double> l, View<double> x) {
  for (int64_t first = 0; first < l.rows; first += kBlock) {
    const int64_t n = std::min(kBlock, l.rows - first), last = first + n, rest = l.rows - last;
    const auto part = x.block(first, 0, n, x.cols);
    solve_small(l.block(first, first, n, n), part);
    multiply_add(x.block(last, 0, rest, x.cols), 1, -1, l.block(last, first, rest, n), part);
  }
}

void solve_lower_transposed(View<double> l, View<double> x) {
  const int64_t blocks = (l.rows + kBlock - 1) / kBlock;
  for (int64_t first = (blocks - 1) * kBlock; first >= 0; first -= kBlock) {
    const int64_t n = std::min(kBlock, l.rows - first), last = first + n, rest = l.rows - last;
    const auto part = x.block(first, 0, n, x.cols);
    multiply_add(part, 1, -1, l.block(last, first, rest, n).t(), x.block(last, 0, rest, x.cols));
    solve_small_transposed(l.block(first, first, n, n), part);
  }
}

void orthonormalise(View<double> q) {
  const int64_t n = q.cols;
  std::vector<double> storage(2 * n * n + q.rows * n);
  const auto gram = column_major(storage.data(), n, n, n);
  const auto inverse = column_major(storage.data() + n * n, n, n, n);
  const auto copy = column_major(storage.data() + 2 * n * n, q.rows, n, q.rows);
  for (int pass = 0; pass < 2; ++pass) {
    multiply_add(gram, 0, 1, q.t(), q);
    cholesky_small(gram);
    std::fill_n(inverse.data, n * n, 0.0);
    for (int64_t j = 0; j < n; ++j) inverse(j, j) = 1;
    solve_lower(gram, inverse);
    for (int64_t j = 0; j < n; ++j) std::copy_n(q.column(j), q.rows, copy.column(j));
    multiply_add(q, 0, 1, copy, inverse.t());
  }
}

}  // namespace recyclelora
