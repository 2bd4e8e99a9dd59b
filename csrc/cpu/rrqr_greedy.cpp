#include "rrqr_greedy.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace recyclelora {

GreedyQR::GreedyQR(const Matrix& matrix)
    : matrix_(matrix),
      steps_(std::min(matrix.rows(), matrix.cols())),
      noise_(matrix.cols()),
      reflectors_(matrix.rows(), steps_),
      taken_(matrix.cols()) {
  std::vector<double> row(matrix.cols());
  for (int64_t i = 0; i < matrix.rows(); ++i) {
    matrix.read_rows(i, 1, row.data());
    for (int64_t j = 0; j < matrix.cols(); ++j) noise_[j] += row[j] * row[j];
  }
  const double precision =
      4 * std::max(matrix.rows(), matrix.cols()) * std::numeric_limits<double>::epsilon();
  for (double& noise : noise_) noise = precision * std::sqrt(noise);
}

void GreedyQR::load(const std::vector<int64_t>& columns) {
  const int64_t rows = matrix_.rows(), n = columns.size(), row = pivots_.size();
  storage_.resize(rows * n);
  matrix_.read_columns(columns.data(), n, storage_.data(), rows);
  reflectors_.apply_transposed(column_major(storage_.data(), rows, n, rows));
  pool_.clear();
  for (int64_t j = 0; j < n; ++j) {
    double* data = storage_.data() + j * rows;
    double squares = 0;
    for (int64_t i = row; i < rows; ++i) squares += data[i] * data[i];
    pool_.push_back({columns[j], data, std::sqrt(squares)});
  }
}

void GreedyQR::eliminate(size_t i) {
  const Column pivot = pool_[i];
  pool_.erase(pool_.begin() + i);
  const int64_t row = pivots_.size();
  const double diagonal = reflectors_.append(pivot.data);
  for (Column& column : pool_) {
    column.norm = std::sqrt(reflect(reflectors_.vector(row) + row, reflectors_.tau(row),
                                    column.data + row, matrix_.rows() - row));
  }
  pivots_.push_back(pivot.index);
  diagonal_.push_back(diagonal);
  taken_[pivot.index] = true;
}

std::vector<int64_t> GreedyQR::remaining() const {
  std::vector<int64_t> columns;
  for (int64_t j = 0; j < matrix_.cols(); ++j) {
    if (!taken_[j]) columns.push_back(j);
  }
  return columns;
}

void GreedyQR::take(const std::vector<int64_t>& columns) {
  for (size_t first = 0; first < columns.size(); first += Reflectors::kPanel) {
    const size_t last = std::min<size_t>(first + Reflectors::kPanel, columns.size());
    load({columns.begin() + first, columns.begin() + last});
    while (!pool_.empty()) eliminate(0);
    reflectors_.close_panel();
  }
}

// The lowest index among the columns whose norm may be the largest; false where nothing but
// rounding is left.
bool GreedyQR::choose(size_t* chosen) const {
  double largest = -std::numeric_limits<double>::infinity();
  for (const Column& column : pool_) {
    largest = std::max(largest, column.norm - noise_[column.index]);
  }
  if (largest <= 0) return false;
  *chosen = pool_.size();
  for (size_t i = 0; i < pool_.size(); ++i) {
    const Column& column = pool_[i];
    if (column.norm + noise_[column.index] < largest) continue;
    if (*chosen == pool_.size() || column.index < pool_[*chosen].index) *chosen = i;
  }
  return true;
}

void GreedyQR::run() {
  load(remaining());
  size_t next;
  while (static_cast<int64_t>(pivots_.size()) < steps_ && choose(&next)) eliminate(next);
  reflectors_.close_panel();
  std::vector<int64_t> rest = remaining();
  rest.resize(steps_ - pivots_.size());
  take(rest);
}

void GreedyQR::columns_of_q(int64_t first, View<double> q) const {
  for (int64_t j = 0; j < q.cols; ++j) {
    std::fill_n(q.column(j), q.rows, 0.0);
    q(first + j, j) = diagonal_[first + j] < 0 ? -1 : 1;
  }
  reflectors_.apply(q);
}

}  // namespace recyclelora
