#include "rrqr_greedy.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "../interruption.h"

namespace recyclelora {
namespace {

constexpr int64_t kCandidates = 128;  // columns of one forecast
constexpr int64_t kPanel = 32;        // pivots between two comparisons with all columns
// The largest matrix of which a copy with contiguous columns is kept. Larger ones spend a smaller
// share of their time on reading columns.
constexpr int64_t kKept = 32 << 20;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

RECYCLELORA_VECTOR_CLONES
void add_squares(const double* values, double* sums, int64_t n) {
  for (int64_t j = 0; j < n; ++j) sums[j] += values[j] * values[j];
}

// The residual norms of a column after the pivots before row first, first + 1, ..., end - 1 were
// removed. `last` is its residual norm without the rows before end.
std::vector<double> norms_before(const double* column, int64_t first, int64_t end, double last) {
  std::vector<double> norms(end - first);
  double squares = last * last;
  for (int64_t i = end - 1; i >= first; --i) {
    squares += column[i] * column[i];
    norms[i - first] = std::sqrt(squares);
  }
  return norms;
}

}  // namespace

GreedyQR::GreedyQR(Matrix& matrix)
    : matrix_(matrix),
      steps_(std::min(matrix.rows(), matrix.cols())),
      norms_(matrix.cols()),
      noise_(matrix.cols()),
      reflectors_(matrix.rows(), steps_),
      taken_(matrix.cols()) {
  if (matrix.cols() > kCandidates && matrix.bytes() <= kKept) matrix.keep_columns();
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

// Columns after all reflections, with their values in `storage`.
std::vector<GreedyQR::Column> GreedyQR::add(const std::vector<int64_t>& columns,
                                            Columns* storage) const {
  std::vector<Column> added;
  if (columns.empty()) return added;
  const int64_t n = columns.size(), row = pivots_.size();
  for (int64_t j = 0; j < n; ++j) matrix_.read_column(columns[j], storage->column(j));
  reflectors_.apply_transposed(storage);
  for (int64_t j = 0; j < n; ++j) {
    double* const data = storage->column(j);
    double squares = 0;
    for (int64_t i = row; i < matrix_.rows(); ++i) squares += data[i] * data[i];
    added.push_back({columns[j], data, std::sqrt(squares)});
  }
  return added;
}

void GreedyQR::eliminate(const Column& pivot, std::vector<Column>* others) {
  const int64_t row = pivots_.size();
  const double diagonal = reflectors_.append(pivot.data);
  for (Column& column : *others) {
    column.norm = std::sqrt(reflect(reflectors_.vector(row) + row, reflectors_.tau(row),
                                    column.data + row, matrix_.rows() - row));
  }
  pivots_.push_back(pivot.index);
  diagonal_.push_back(diagonal);
  taken_[pivot.index] = true;
}

void GreedyQR::take(const std::vector<int64_t>& columns) {
  for (size_t first = 0; first < columns.size(); first += kMostReflections) {
    const size_t last = std::min<size_t>(first + kMostReflections, columns.size());
    Columns storage(matrix_.rows(), last - first);
    eliminate_in_order(add({columns.begin() + first, columns.begin() + last}, &storage));
  }
}

// Each has its residual norms before the first of them and every later one, up to its own step.
std::vector<GreedyQR::Rival> GreedyQR::eliminate_in_order(std::vector<Column> columns) {
  const int64_t first = pivots_.size();
  std::vector<Rival> pivots;
  while (!columns.empty()) {
    const Column pivot = columns.front();
    columns.erase(columns.begin());
    std::vector<double> norms = norms_before(pivot.data, first, pivots_.size(), pivot.norm);
    norms.push_back(pivot.norm);
    pivots.push_back({pivot.index, std::move(norms)});
    eliminate(pivot, &columns);
  }
  reflectors_.close_panel();
  return pivots;
}

// Returns the next pivot among columns (index, norm): the lowest index among those whose norms tie
// with the largest, or null if all norms are below the rounding error.
template <typename List, typename Norm>
auto GreedyQR::choose(List& columns, const Norm& norm) const {
  auto chosen = columns.end();
  const auto unscaled = [&](int64_t j, double value) { return matrix_.unscaled(j, value); };
  Wide largest = 0;
  for (const auto& column : columns) {
    largest = std::max(largest, unscaled(column.index, norm(column) - noise_[column.index]));
  }
  if (largest == 0) return chosen;
  for (auto column = columns.begin(); column != columns.end(); ++column) {
    if (unscaled(column->index, norm(*column) + noise_[column->index]) < largest) continue;
    if (chosen == columns.end() || column->index < chosen->index) chosen = column;
  }
  return chosen;
}

// Returns false if all residuals are below the rounding error.
bool GreedyQR::eliminate_panel(std::vector<Column>* columns) {
  check_interruption();
  bool more = true;
  for (int64_t i = 0; i < kPanel && more && !done(); ++i) {
    const auto chosen = choose(*columns, [](const Column& column) { return column.norm; });
    more = chosen != columns->end();
    if (!more) break;
    const Column pivot = *chosen;
    columns->erase(chosen);
    eliminate(pivot, columns);
  }
  reflectors_.close_panel();
  return more;
}

bool GreedyQR::eliminate_panel_of_all(Screen* screen) {
  const std::vector<int64_t> indices = remaining();
  Columns storage(matrix_.rows(), indices.size());
  std::vector<Column> columns = add(indices, &storage);
  const bool more = eliminate_panel(&columns);
  screen->begin_renewal(pivots_.size());
  for (const Column& column : columns) screen->renew(column.index, column.data, column.norm);
  return more;
}

// Predicts pivots, factors them and keeps the proven ones. Returns whether there is any.
bool GreedyQR::eliminate_forecast(Screen* screen) {
  const int64_t first = pivots_.size();
  const auto upper = [&](int64_t j) { return screen->relative(j, screen->upper(j)); };
  screen->sharpen(kCandidates, taken_);
  std::vector<int64_t> columns = remaining();
  const auto rest = columns.begin() + std::min<int64_t>(kCandidates, columns.size());
  std::nth_element(columns.begin(), rest, columns.end(),
                   [&](int64_t i, int64_t j) { return upper(i) > upper(j); });
  double largest = 0;
  for (auto j = rest; j != columns.end(); ++j) {
    largest = std::max(largest, screen->relative(*j, screen->upper(*j) + noise_[*j]));
  }
  const Wide outside = screen->unscaled(largest);
  columns.erase(rest, columns.end());
  std::sort(columns.begin(), columns.end());
  Candidates candidates(matrix_, *screen, std::move(columns), first);
  const std::vector<int64_t> forecast =
      candidates.forecast(outside, std::min(kPanel, steps_ - first));
  Columns storage(matrix_.rows(), forecast.size());
  std::vector<Rival> pivots = eliminate_in_order(add(forecast, &storage));
  const std::vector<int64_t> proven = prove(first, std::move(pivots), outside, &candidates);
  const auto wrong = std::mismatch(proven.begin(), proven.end(), forecast.begin()).first;
  forget(first + (wrong - proven.begin()));
  take({wrong, proven.end()});
  for (const Reflectors::Block& block : reflectors_.blocks(first)) screen->reflect(block);
  return !proven.empty();
}

// Returns the greedy pivots from `first` on: the predicted ones up to the first wrong one, then the
// correct one if it is known. `candidates` are those of the forecast, `rivals` its pivots.
std::vector<int64_t> GreedyQR::prove(int64_t first, std::vector<Rival> rivals, Wide outside,
                                     Candidates* candidates) const {
  const int64_t count = rivals.size();
  std::vector<Wide> least;  // bound that the norms of the others must not reach
  for (const Rival& pivot : rivals) {
    least.push_back(matrix_.unscaled(pivot.index, pivot.norms.back() - noise_[pivot.index]));
    if (least.back() > outside) continue;
    least.pop_back();
    break;
  }
  std::vector<int64_t> proven;
  if (least.empty()) return proven;
  candidates->reflect(reflectors_.blocks(first).front());
  std::vector<int64_t> close;
  for (size_t c = 0; c < candidates->columns().size(); ++c) {
    const int64_t j = candidates->columns()[c];
    const Wide noise = matrix_.unscaled(j, noise_[j]);
    bool below = true;
    for (size_t i = 0; i < least.size(); ++i) {
      below = below && candidates->upper(i, c) + noise < least[i];
    }
    if (!taken_[j] && !below) close.push_back(j);
  }
  Columns storage(matrix_.rows(), close.size());
  for (const Column& column : add(close, &storage)) {
    rivals.push_back({column.index, norms_before(column.data, first, first + count, column.norm)});
  }
  for (size_t i = 0; i < least.size(); ++i) {
    const auto chosen = choose(rivals, [i](const Rival& rival) {
      return i < rival.norms.size() ? rival.norms[i] : -kInfinity;
    });
    if (chosen == rivals.end()) break;
    proven.push_back(chosen->index);
    if (chosen->index != pivots_[first + i]) break;
  }
  return proven;
}

void GreedyQR::forget(int64_t first) {
  for (size_t i = first; i < pivots_.size(); ++i) taken_[pivots_[i]] = false;
  pivots_.resize(first);
  diagonal_.resize(first);
  reflectors_.truncate(first);
}

void GreedyQR::run() {
  const std::vector<int64_t> columns = remaining();
  if (static_cast<int64_t>(columns.size()) <= kCandidates) {
    Columns storage(matrix_.rows(), columns.size());
    std::vector<Column> left = add(columns, &storage);
    while (!done() && eliminate_panel(&left)) {
    }
  } else {
    run_screened();
  }
  std::vector<int64_t> rest = remaining();
  rest.resize(steps_ - pivots_.size());
  take(rest);
}

void GreedyQR::run_screened() {
  Screen screen(matrix_, norms_);
  for (const Reflectors::Block& block : reflectors_.blocks(0)) screen.reflect(block);
  bool more = !done();
  while (more) {
    check_interruption();
    const bool proven = eliminate_forecast(&screen);
    more = !done() && (proven || eliminate_panel_of_all(&screen));
  }
}

void GreedyQR::columns_of_q(int64_t first, View<double> q) const {
  Columns columns(q.rows, q.cols);
  for (int64_t j = 0; j < q.cols; ++j) {
    columns.column(j)[first + j] = diagonal_[first + j] < 0 ? -1 : 1;
  }
  reflectors_.apply(&columns);
  for (int64_t j = 0; j < q.cols; ++j) std::copy_n(columns.column(j), q.rows, q.column(j));
}

}  // namespace recyclelora
