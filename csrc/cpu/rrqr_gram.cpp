#include "rrqr_gram.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "../interruption.h"
#include "triangular.h"

namespace recyclelora {
namespace {

constexpr int64_t kBlock = 64;     // columns of L between two updates of the columns to their right
constexpr int64_t kRows = 256;     // rows of W that are converted to float64 at a time
constexpr double kLoss = 0x1p-14;  // the largest accepted loss of orthogonality of W P R^{-1}
// The noise has safety factors. Growth within a block counts for the loss only by this share of
// the noise, so that Q keeps the bits of version 0.2 where there is no such growth: adapter files
// may leave out initial factors, which are then computed again.
constexpr double kBlockShare = 0x1p-5;
constexpr size_t kRefined = 32;       // the most columns whose noise is computed for a pivot
constexpr double kPrecise = 0x1p-27;  // an error below the precision of float32
// The unit of columns that are too small to become pivots, and the square of the largest residual
// norm below which units are set again. It is much larger than the squares of those columns.
constexpr int kLeastUnit = -480;
constexpr double kSmall = 0x1p-500;
constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

// Columns at a distance of a power of two compete for the same cache lines.
int64_t stride(int64_t rows) {
  return rows + 8;
}

// x -= y a, for the few columns of y, which are stride apart
RECYCLELORA_VECTOR_CLONES
void subtract(View<double> y, const double* a, int64_t a_stride, double* x) {
  const int64_t n = y.rows;
  int64_t j = 0;
  for (; j + 4 <= y.cols; j += 4) {
    const double a0 = a[j * a_stride], a1 = a[(j + 1) * a_stride];
    const double a2 = a[(j + 2) * a_stride], a3 = a[(j + 3) * a_stride];
    const double *y0 = y.column(j), *y1 = y.column(j + 1);
    const double *y2 = y.column(j + 2), *y3 = y.column(j + 3);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      x[i] = x[i] - a0 * y0[i] - a1 * y1[i] - a2 * y2[i] - a3 * y3[i];
    }
  }
  for (; j < y.cols; ++j) {
    const double a0 = a[j * a_stride];
    const double* const y0 = y.column(j);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) x[i] -= a0 * y0[i];
  }
}

// x /= a; residual -= x^2; spread += scale |x|; noise = precision (squares + spread^2)
RECYCLELORA_VECTOR_CLONES
void divide(double a, double scale, double precision, const double* squares, double* x,
            double* residual, double* spread, double* noise, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    x[i] /= a;
    residual[i] -= x[i] * x[i];
    spread[i] += scale * std::abs(x[i]);
    noise[i] = precision * (squares[i] + spread[i] * spread[i]);
  }
}

// x += y a, for the columns of y, which are stride apart
RECYCLELORA_VECTOR_CLONES
void add(View<const float> y, const float* a, float* x) {
  const int64_t n = y.rows;
  int64_t j = 0;
  for (; j + 4 <= y.cols; j += 4) {
    const float *y0 = y.column(j), *y1 = y.column(j + 1);
    const float *y2 = y.column(j + 2), *y3 = y.column(j + 3);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      x[i] += a[j] * y0[i] + a[j + 1] * y1[i] + a[j + 2] * y2[i] + a[j + 3] * y3[i];
    }
  }
  for (; j < y.cols; ++j) {
    const float* const y0 = y.column(j);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) x[i] += a[j] * y0[i];
  }
}

// Return the largest unit^2 (x - y).
RECYCLELORA_VECTOR_CLONES
double largest_difference(const double* x, const double* y, const double* unit, int64_t n) {
  double largest = -std::numeric_limits<double>::infinity();
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < n; ++i) {
    const double difference = (x[i] - y[i]) * unit[i] * unit[i];
    largest = difference > largest ? difference : largest;
  }
  return largest;
}

RECYCLELORA_VECTOR_CLONES
double weighted_squares(const double* weights, const float* x, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += weights[i] * x[i] * x[i];
  return sum;
}

}  // namespace

GramQR::GramQR(int64_t rows, int64_t cols)
    : size_(cols),
      // The rounding errors of sums of n products grow like sqrt(n); 8 is a safety factor.
      gram_precision_(8 * std::sqrt(static_cast<double>(rows)) * kEpsilon),
      sum_(size_, kRows),
      rows_(large_array<double>(kRows * size_)),
      l_storage_(large_array<double>(stride(size_) * size_)),
      growth_storage_(large_array<float>(stride(size_) * size_)),
      l_(column_major(l_storage_.get(), size_, size_, stride(size_))),
      growth_(column_major(growth_storage_.get(), size_, size_, stride(size_))),
      index_(size_),
      squares_(size_),
      residual_(size_),
      noise_(size_),
      spread_(size_),
      tie_(size_),
      unit_(size_),
      combination_(size_) {}

void GramQR::decompose(const Matrix& matrix) {
  matrix_ = &matrix;
  form();
  start();
  for (int64_t begin = 0; begin < size_; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, size_), rest = size_ - end;
    check_interruption();
    if (!factor_block(begin, end)) return;
    sum_.add(l_.block(end, end, rest, rest), 1, -1, l_.block(end, begin, rest, end - begin));
    follow_growth(begin, end);
  }
}

void GramQR::form() {
  for (int64_t first = 0; first < matrix_->rows(); first += kRows) {
    const int64_t count = std::min(kRows, matrix_->rows() - first);
    check_interruption();
    sum_.add_rows(l_, first == 0 ? 0 : 1, *matrix_, first, count);
  }
}

void GramQR::start() {
  pivots_.clear();
  diagonal_.clear();
  loss_ = 0;
  std::iota(index_.begin(), index_.end(), 0);
  const double precision = 4 * std::max(matrix_->rows(), size_) * kEpsilon;
  for (int64_t j = 0; j < size_; ++j) {
    squares_[j] = residual_[j] = l_(j, j);
    spread_[j] = 0;
    noise_[j] = gram_precision_ * squares_[j];
    tie_[j] = precision * std::sqrt(squares_[j]);
  }
  set_units(0);
}

// Set the units of the columns from `step` on.
void GramQR::set_units(int64_t step) {
  int largest = std::numeric_limits<int>::min();
  for (int64_t j = step; j < size_; ++j) largest = std::max(largest, matrix_->exponent(index_[j]));
  largest_tie_ = 0;
  for (int64_t j = step; j < size_; ++j) {
    const int exponent = matrix_->exponent(index_[j]) - largest;
    unit_[j] = std::ldexp(1.0, std::max(exponent, kLeastUnit));
    largest_tie_ = std::max(largest_tie_, tie_[j] * unit_[j]);
  }
}

// The bounds of the noise may be too large. If they do not certify a pivot, the noise of the
// columns that could be the pivot is computed.
bool GramQR::certified_pivot(int64_t begin, int64_t step, int64_t* pivot) {
  if (choose_pivot(step, pivot)) return true;
  if (candidates_.size() > kRefined) return false;
  for (int64_t j : candidates_) combine_pivots(begin, step, j);
  return choose_pivot(step, pivot);
}

// Every residual norm is in an interval [low, high]. The pivot is the lowest index that may tie
// with the largest norm. It is certified if it ties with every other column that may be the
// largest. Return whether it is; otherwise candidates_ are the columns that may be the largest.
bool GramQR::choose_pivot(int64_t step, int64_t* pivot) {
  const auto root = [&](int64_t j, double square) {
    return std::sqrt(std::max(square, 0.0)) * unit_[j];
  };
  const auto low = [&](int64_t j) { return root(j, residual_[j] - noise_[j]); };
  const auto high = [&](int64_t j) { return root(j, residual_[j] + noise_[j]); };
  const auto tie = [&](int64_t j) { return tie_[j] * unit_[j]; };
  const auto largest_square = [&] {
    return largest_difference(residual_.data() + step, noise_.data() + step, unit_.data() + step,
                              size_ - step);
  };
  // Roots are needed only for the few columns whose norm, by their squares, may be within two ties
  // of the largest.
  double largest = largest_square();
  if (largest < kSmall) {
    set_units(step);
    largest = largest_square();
  }
  const double near = std::max(std::sqrt(std::max(largest, 0.0)) - 3 * largest_tie_, 0.0);
  candidates_.clear();
  double top = -std::numeric_limits<double>::infinity();
  for (int64_t j = step; j < size_; ++j) {
    if (std::max(residual_[j] + noise_[j], 0.0) * unit_[j] * unit_[j] < near * near) continue;
    candidates_.push_back(j);
    top = std::max(top, low(j) - tie(j));
  }
  const auto cannot_tie = [&](int64_t j) { return high(j) + tie(j) < top; };
  candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(), cannot_tie),
                    candidates_.end());
  const int64_t lowest =
      *std::min_element(candidates_.begin(), candidates_.end(),
                        [&](int64_t i, int64_t j) { return index_[i] < index_[j]; });
  *pivot = lowest;
  return noise_[lowest] < kLoss * residual_[lowest] &&
         std::all_of(
             candidates_.begin(), candidates_.end(),
             [&](int64_t j) {
               return j == lowest || low(lowest) + tie(lowest) >= high(j) - tie(j);
             });
}

// The columns of L before `begin` are exchanged at the end of the block, see exchange_rows.
void GramQR::exchange(int64_t begin, int64_t step, int64_t pivot) {
  if (pivot == step) return;
  for (int64_t j = begin; j < step; ++j) std::swap(l_(step, j), l_(pivot, j));
  for (int64_t j = step + 1; j < pivot; ++j) std::swap(l_(j, step), l_(pivot, j));
  for (int64_t i = pivot + 1; i < size_; ++i) std::swap(l_(i, step), l_(i, pivot));
  std::swap(l_(step, step), l_(pivot, pivot));
  std::swap_ranges(growth_.column(step), growth_.column(step) + begin, growth_.column(pivot));
  std::swap(index_[step], index_[pivot]);
  for (auto* values : {&squares_, &residual_, &noise_, &spread_, &tie_, &unit_}) {
    std::swap((*values)[step], (*values)[pivot]);
  }
}

// Apply the exchanges of a block to the columns of L before it, one column at a time, so that it
// stays in the cache.
void GramQR::exchange_rows(int64_t begin, const std::vector<int64_t>& exchanged) {
  for (int64_t j = 0; j < begin; ++j) {
    double* const column = l_.column(j);
    for (size_t i = 0; i < exchanged.size(); ++i)
      std::swap(column[begin + i], column[exchanged[i]]);
  }
}

bool GramQR::factor_block(int64_t begin, int64_t end) {
  std::vector<int64_t> exchanged;
  for (int64_t step = begin; step < end; ++step) {
    int64_t pivot;
    if (!certified_pivot(begin, step, &pivot)) return false;
    exchange(begin, step, pivot);
    exchanged.push_back(pivot);
    const double square_before = weighted_squares(squares_.data(), growth_.column(step), begin);
    combine_pivots(begin, step, step);
    keep_combination(step, end);
    double* const column = l_.column(step);
    const auto before = l_.block(step, begin, size_ - step, step - begin);
    subtract(before, before.data, before.col_stride, column + step);
    const double diagonal = std::sqrt(column[step]);
    column[step] = diagonal;
    const int64_t next = step + 1;
    divide(diagonal, std::sqrt(squares_[step] + spread_[step] * spread_[step]) / diagonal,
           gram_precision_, squares_.data() + next, column + next, residual_.data() + next,
           spread_.data() + next, noise_.data() + next, size_ - next);
    const double noise_before = gram_precision_ * (squares_[step] + square_before);
    loss_ = std::max(loss_, std::max(noise_before, kBlockShare * noise_[step]) / residual_[step]);
    pivots_.push_back(index_[step]);
    diagonal_.push_back(diagonal);
  }
  exchange_rows(begin, exchanged);
  return true;
}

// Compute combination_ = R_11^{-1} R_12 e_j at this step of the block that starts at `begin`, and
// the noise of column j, which follows from it.
void GramQR::combine_pivots(int64_t begin, int64_t step, int64_t j) {
  float* const x = combination_.data();
  std::copy_n(growth_.column(j), begin, x);
  std::fill(x + begin, x + step, 0.0F);
  float factors[kBlock];
  for (int64_t i = begin; i < step; ++i) {
    factors[i - begin] = static_cast<float>(l_(j, i) / l_(i, i));
  }
  add(growth_.block(0, begin, step, step - begin), factors, x);
  set_noise(j, x, step);
}

// Set the noise of column j, given its combination x of the first n pivots.
void GramQR::set_noise(int64_t j, const float* x, int64_t n) {
  spread_[j] = std::sqrt(weighted_squares(squares_.data(), x, n));
  noise_[j] = gram_precision_ * (squares_[j] + spread_[j] * spread_[j]);
}

// From now on, column `step` of growth_ is the combination of pivots that equals the residual of
// this pivot: [-combination_; 1]. Rows up to the end of the block are needed.
void GramQR::keep_combination(int64_t step, int64_t end) {
  float* const residual = growth_.column(step);
  for (int64_t i = 0; i < step; ++i) residual[i] = -combination_[i];
  residual[step] = 1;
  std::fill(residual + step + 1, residual + end, 0.0F);
}

// In a step with the row r of R and the pivot p, the combination of column j becomes x_j + (r_j /
// r_p) [-x_p; 1]. All steps of a block are one product.
void GramQR::follow_growth(int64_t begin, int64_t end) {
  const int64_t n = end - begin, rest = size_ - end;
  std::vector<float> storage(n * rest);
  const auto factors = column_major(storage.data(), rest, n, rest);
  for (int64_t j = 0; j < n; ++j) {
    const double* const column = l_.column(begin + j);
    for (int64_t i = 0; i < rest; ++i) {
      factors(i, j) = static_cast<float>(column[end + i] / column[begin + j]);
    }
  }
  const auto residuals = growth_.block(0, begin, end, n);
  multiply_add(growth_.block(0, end, begin, rest), 1, 1, residuals.block(0, 0, begin, n),
               factors.t());
  multiply_add(growth_.block(begin, end, n, rest), 0, 1, residuals.block(begin, 0, n, n),
               factors.t());
  for (int64_t j = end; j < size_; ++j) set_noise(j, growth_.column(j), end);
}

void GramQR::columns_of_q(int64_t first, View<double> q) const {
  if (q.cols == 0) return;
  const int64_t n = first + q.cols;
  std::vector<double> storage(size_ * q.cols);
  const auto coefficients = column_major(storage.data(), size_, q.cols, size_);
  for (int64_t j = 0; j < q.cols; ++j) coefficients(first + j, j) = 1;
  solve_lower_transposed(l_.block(0, 0, n, n), coefficients.block(0, 0, n, q.cols));
  if (first == 0) {
    combine_first(coefficients.block(0, 0, n, n), q);
  } else {
    times_weight(coefficients, q);
    // Each pass multiplies the remaining part of the other columns of Q by the loss.
    for (double error = loss_; error > kPrecise; error *= loss_) project_out(first, q);
  }
  orthonormalise(q);
}

// q = W P coefficients, where only the first pivots are combined.
void GramQR::combine_first(View<double> coefficients, View<double> q) const {
  std::vector<double> storage(q.rows * q.cols);
  const auto columns = column_major(storage.data(), q.rows, q.cols, q.rows);
  for (int64_t j = 0; j < q.cols; ++j) matrix_->read_column(index_[j], columns.column(j));
  multiply_add(q, 0, 1, columns, coefficients);
}

// q -= Q_1 Q_1' q, where Q_1 = W P R_11^{-1} are the columns of Q before `first`.
void GramQR::project_out(int64_t first, View<double> q) const {
  std::vector<double> storage(size_ * q.cols + q.rows * q.cols);
  const auto coefficients = column_major(storage.data(), size_, q.cols, size_);
  const auto part = column_major(storage.data() + size_ * q.cols, q.rows, q.cols, q.rows);
  weight_times(q, coefficients);
  const auto before = coefficients.block(0, 0, first, q.cols);
  const auto triangle = l_.block(0, 0, first, first);
  solve_lower(triangle, before);
  solve_lower_transposed(triangle, before);
  for (int64_t j = 0; j < q.cols; ++j) {
    std::fill(coefficients.column(j) + first, coefficients.column(j) + size_, 0.0);
  }
  times_weight(coefficients, part);
  for (int64_t j = 0; j < q.cols; ++j) {
    for (int64_t i = 0; i < q.rows; ++i) q(i, j) -= part(i, j);
  }
}

// q = W P coefficients
void GramQR::times_weight(View<double> coefficients, View<double> q) const {
  std::vector<double> storage(size_ * q.cols);
  const auto unpermuted = column_major(storage.data(), size_, q.cols, size_);
  for (int64_t j = 0; j < q.cols; ++j) {
    for (int64_t i = 0; i < size_; ++i) unpermuted(index_[i], j) = coefficients(i, j);
  }
  for (int64_t first = 0; first < q.rows; first += kRows) {
    const int64_t count = std::min(kRows, q.rows - first);
    check_interruption();
    matrix_->read_rows(first, count, rows_.get());
    multiply_add(q.block(first, 0, count, q.cols), 0, 1,
                 row_major(rows_.get(), count, size_, size_), unpermuted);
  }
}

// coefficients = (W P)' q
void GramQR::weight_times(View<double> q, View<double> coefficients) const {
  std::vector<double> storage(size_ * q.cols);
  const auto unpermuted = column_major(storage.data(), size_, q.cols, size_);
  for (int64_t first = 0; first < q.rows; first += kRows) {
    const int64_t count = std::min(kRows, q.rows - first);
    check_interruption();
    matrix_->read_rows(first, count, rows_.get());
    multiply_add(unpermuted, 1, 1, row_major(rows_.get(), count, size_, size_).t(),
                 q.block(first, 0, count, q.cols));
  }
  for (int64_t j = 0; j < q.cols; ++j) {
    for (int64_t i = 0; i < size_; ++i) coefficients(i, j) = unpermuted(index_[i], j);
  }
}

}  // namespace recyclelora
