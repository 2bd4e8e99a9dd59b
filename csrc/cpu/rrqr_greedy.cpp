#include "rrqr_greedy.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace recyclelora {
namespace {

constexpr int64_t kPool = 96;   // columns of the pool
constexpr int64_t kPanel = 24;  // pivots between two looks at the columns outside
constexpr int64_t kFew = 2;     // pivots of a panel under which the screen has lost its worth
constexpr double kInfinity = std::numeric_limits<double>::infinity();

RECYCLELORA_VECTOR_CLONES
void add_squares(const double* values, double* sums, int64_t n) {
  for (int64_t j = 0; j < n; ++j) sums[j] += values[j] * values[j];
}

}  // namespace

GreedyQR::GreedyQR(const Matrix& matrix)
    : matrix_(matrix),
      steps_(std::min(matrix.rows(), matrix.cols())),
      norms_(matrix.cols()),
      noise_(matrix.cols()),
      reflectors_(matrix.rows(), steps_),
      taken_(matrix.cols()),
      pooled_(matrix.cols()) {
  std::vector<double> row(matrix.cols());
  for (int64_t i = 0; i < matrix.rows(); ++i) {
    matrix.read_rows(i, 1, row.data());
    add_squares(row.data(), norms_.data(), matrix.cols());
  }
  const double precision =
      4 * std::max(matrix.rows(), matrix.cols()) * std::numeric_limits<double>::epsilon();
  for (int64_t j = 0; j < matrix.cols(); ++j) {
    norms_[j] = std::sqrt(norms_[j]);
    noise_[j] = precision * norms_[j];
  }
}

std::vector<int64_t> GreedyQR::remaining() const {
  std::vector<int64_t> columns;
  for (int64_t j = 0; j < matrix_.cols(); ++j) {
    if (!taken_[j]) columns.push_back(j);
  }
  return columns;
}

// Columns enter the pool; they fill the storage one after the other.
void GreedyQR::add(const std::vector<int64_t>& columns, double* storage) {
  const int64_t rows = matrix_.rows(), n = columns.size(), row = pivots_.size();
  matrix_.read_columns(columns.data(), n, storage, rows);
  if (base_ > 0) {
    const int64_t left = rows - base_;
    const std::vector<double> whole(storage, storage + rows * n);
    multiply_add(column_major(storage + base_, left, n, rows), 0, 1,
                 column_major(z_.data(), rows, left, rows).t(),
                 column_major(const_cast<double*>(whole.data()), rows, n, rows));
  }
  reflectors_.apply_transposed(column_major(storage, rows, n, rows), base_);
  for (int64_t j = 0; j < n; ++j) {
    double* data = storage + j * rows;
    double squares = 0;
    for (int64_t i = row; i < rows; ++i) squares += data[i] * data[i];
    pool_.push_back({columns[j], data, std::sqrt(squares)});
    pooled_[columns[j]] = true;
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
  free_.push_back(pivot.data);
}

void GreedyQR::take(const std::vector<int64_t>& columns) {
  storage_.resize(matrix_.rows() * Reflectors::kPanel);
  for (size_t first = 0; first < columns.size(); first += Reflectors::kPanel) {
    const size_t last = std::min<size_t>(first + Reflectors::kPanel, columns.size());
    add({columns.begin() + first, columns.begin() + last}, storage_.data());
    while (!pool_.empty()) eliminate(0);
    reflectors_.close_panel(base_);
  }
}

GreedyQR::Outside GreedyQR::look_outside(const Screen* screen) const {
  Outside outside{-kInfinity, {}};
  double largest = -kInfinity;
  for (int64_t j = 0; j < matrix_.cols(); ++j) {
    outside.before.push_back(largest);
    if (taken_[j] || pooled_[j]) continue;
    outside.largest = std::max(outside.largest, screen->upper(j) - noise_[j]);
    largest = std::max(largest, screen->upper(j) + noise_[j]);
  }
  return outside;
}

// The pivot is the lowest index among the columns whose norms tie with the largest. It is certain
// if the largest of the columns outside would not change that, whatever it is below its bound.
GreedyQR::Choice GreedyQR::choose(const Outside& outside, size_t* chosen) const {
  double largest = -kInfinity;
  for (const Column& column : pool_) {
    largest = std::max(largest, column.norm - noise_[column.index]);
  }
  if (std::max(largest, outside.largest) <= 0) return Choice::kNoneLeft;
  *chosen = pool_.size();
  for (size_t i = 0; i < pool_.size(); ++i) {
    const Column& column = pool_[i];
    if (column.norm + noise_[column.index] < largest) continue;
    if (*chosen == pool_.size() || column.index < pool_[*chosen].index) *chosen = i;
  }
  if (*chosen == pool_.size()) return Choice::kOpen;
  const Column& pivot = pool_[*chosen];
  const bool certain =
      pivot.norm + noise_[pivot.index] >= outside.largest && outside.before[pivot.index] < largest;
  return certain ? Choice::kCertain : Choice::kOpen;
}

int64_t GreedyQR::eliminate_panel(const Screen* screen, Choice* end) {
  const Outside outside = look_outside(screen);
  const int64_t before = pivots_.size();
  size_t next;
  *end = Choice::kCertain;
  while (!done() && static_cast<int64_t>(pivots_.size()) - before < kPanel) {
    *end = choose(outside, &next);
    if (*end != Choice::kCertain) break;
    eliminate(next);
  }
  reflectors_.close_panel(std::max(base_, screen ? screen->first_row() : 0));
  return static_cast<int64_t>(pivots_.size()) - before;
}

// The columns of Q from first on leave the screen's residuals.
void GreedyQR::project_out(int64_t first, Screen* screen) const {
  const int64_t rows = matrix_.rows(), count = pivots_.size() - first;
  const bool by_z = base_ > 0 && screen->first_row() == 0;
  std::vector<double> storage(2 * rows * count);
  const auto q = column_major(storage.data(), rows, count, rows);
  const auto whole = column_major(storage.data() + rows * count, rows, count, rows);
  for (int64_t j = 0; j < count; ++j) q(first + j, j) = 1;
  reflectors_.apply(q, by_z ? base_ : screen->first_row());
  if (by_z) {
    const int64_t left = rows - base_;
    multiply_add(whole, 0, 1, column_major(const_cast<double*>(z_.data()), rows, left, rows),
                 q.block(base_, 0, left, count));
  }
  screen->project_out(by_z ? whole : q);
}

// Fewer dimensions are left than were at base_: with Z anew, less work for each column that enters
// the pool. No panel of reflections may reach across base_, see close_panel.
void GreedyQR::complete_q() {
  const int64_t rows = matrix_.rows(), row = pivots_.size(), left = rows - row;
  z_.assign(rows * left, 0);
  const auto z = column_major(z_.data(), rows, left, rows);
  for (int64_t j = 0; j < left; ++j) z(row + j, j) = 1;
  reflectors_.apply(z);
  base_ = row;
}

// Makes the pool the columns of the largest bounds; of those that may tie with the largest norm the
// lowest indices.
void GreedyQR::refill(const Screen& screen) {
  std::vector<int64_t> columns = remaining();
  std::vector<double> key(matrix_.cols());
  double top = -kInfinity;
  for (int64_t j : columns) {
    key[j] = screen.upper(j) + noise_[j];
    top = std::max(top, screen.lower(j) - noise_[j]);
  }
  const auto larger = [&](int64_t i, int64_t j) {
    const double first = std::min(key[i], top), second = std::min(key[j], top);
    return first > second || (first == second && i < j);
  };
  const int64_t count = std::min<int64_t>(kPool, columns.size());
  std::nth_element(columns.begin(), columns.begin() + count, columns.end(), larger);
  std::vector<char> wanted(matrix_.cols());
  for (int64_t i = 0; i < count; ++i) wanted[columns[i]] = true;
  const auto unwanted = std::stable_partition(
      pool_.begin(), pool_.end(), [&](const Column& column) { return wanted[column.index]; });
  for (auto column = unwanted; column != pool_.end(); ++column) {
    free_.push_back(column->data);
    pooled_[column->index] = false;
  }
  pool_.erase(unwanted, pool_.end());
  std::vector<int64_t> missing;
  for (int64_t j = 0; j < matrix_.cols(); ++j) {
    if (wanted[j] && !pooled_[j]) missing.push_back(j);
  }
  add_to_storage(missing);
}

void GreedyQR::add_to_storage(const std::vector<int64_t>& columns) {
  std::vector<double> loaded(matrix_.rows() * columns.size());
  add(columns, loaded.data());
  for (auto column = pool_.end() - columns.size(); column != pool_.end(); ++column) {
    std::copy_n(column->data, matrix_.rows(), free_.back());
    column->data = free_.back();
    free_.pop_back();
  }
}

// One panel with every column in the pool; false where nothing but rounding is left.
bool GreedyQR::run_on_all(Screen* screen) {
  const std::vector<int64_t> columns = remaining();
  empty_pool();
  std::vector<double> storage(matrix_.rows() * columns.size());
  add(columns, storage.data());
  Choice end;
  eliminate_panel(nullptr, &end);
  screen->begin_renewal(pivots_.size());
  for (const Column& column : pool_) screen->renew(column.index, column.data, column.norm);
  empty_pool();
  return end != Choice::kNoneLeft;
}

void GreedyQR::empty_pool() {
  pool_.clear();
  std::fill(pooled_.begin(), pooled_.end(), false);
  free_.clear();
  for (int64_t i = 0; i < kPool; ++i) free_.push_back(storage_.data() + i * matrix_.rows());
}

void GreedyQR::run() {
  const int64_t rows = matrix_.rows(), left = matrix_.cols() - pivots_.size();
  Choice end = Choice::kCertain;
  storage_.resize(rows * std::min(kPool, left));
  if (left <= kPool) {
    add(remaining(), storage_.data());
    while (!done() && end != Choice::kNoneLeft) eliminate_panel(nullptr, &end);
  } else {
    run_screened();
  }
  pool_.clear();
  std::vector<int64_t> rest = remaining();
  rest.resize(steps_ - pivots_.size());
  take(rest);
}

void GreedyQR::run_screened() {
  Screen screen(matrix_, norms_);
  empty_pool();
  if (!pivots_.empty()) project_out(0, &screen);
  bool more = !done();
  while (more) {
    Choice end;
    const int64_t first = pivots_.size(), left = matrix_.rows() - first;
    if (left >= kPool / 4 && 8 * left <= 3 * (matrix_.rows() - base_)) complete_q();
    screen.sharpen(kPool, taken_);
    refill(screen);
    const int64_t count = eliminate_panel(&screen, &end);
    if (count > 0 && !done()) project_out(first, &screen);
    more = !done() && (count >= kFew || run_on_all(&screen));
  }
}

void GreedyQR::columns_of_q(int64_t first, View<double> q) const {
  for (int64_t j = 0; j < q.cols; ++j) {
    std::fill_n(q.column(j), q.rows, 0.0);
    q(first + j, j) = diagonal_[first + j] < 0 ? -1 : 1;
  }
  reflectors_.apply(q);
}

}  // namespace recyclelora
