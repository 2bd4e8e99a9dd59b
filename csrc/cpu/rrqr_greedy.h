// QR with greedy column pivoting by Householder reflections: the exact algorithm, for any matrix.

#pragma once

#include <cstdint>
#include <vector>

#include "rrqr_candidates.h"
#include "rrqr_matrix.h"
#include "rrqr_reflectors.h"
#include "rrqr_screen.h"

namespace recyclelora {

// The pivots are those of the plain algorithm, which keeps all residuals in float64. For matrices
// with many columns, only a few columns are computed in float64: float32 predicts some pivots,
// float64 factors them, and each is proven by comparing its accurate norm with bounds of all other
// columns. A column whose bound is too close to a pivot is computed in float64 as well. If no
// prediction is proven, all columns are computed in float64.
class GreedyQR {
 public:
  // Keeps a copy of the matrix's columns if there are many, and the matrix is not large.
  explicit GreedyQR(Matrix& matrix);

  // Factors these columns first, in this order.
  void take(const std::vector<int64_t>& columns);
  // Factors the remaining columns. Each step takes the column with the largest residual norm.
  void run();

  // The columns of W in the order of the pivots, and the diagonal of R with its signs.
  const std::vector<int64_t>& pivots() const { return pivots_; }
  const std::vector<double>& diagonal() const { return diagonal_; }
  // Writes the columns of Q from `first` on to q, with signs for which diag(R) is not negative.
  void columns_of_q(int64_t first, View<double> q) const;

 private:
  struct Column {
    int64_t index;
    double* data;  // Q'w; the rows from the number of pivots on are the residual
    double norm;   // the residual's
  };
  // A column with its residual norms before each of some pivots, up to its own step.
  struct Rival {
    int64_t index;
    std::vector<double> norms;
  };

  std::vector<int64_t> remaining() const;
  std::vector<Column> add(const std::vector<int64_t>& columns, Columns* storage) const;
  template <typename List, typename Norm>
  auto choose(List& columns, const Norm& norm) const;
  void eliminate(const Column& pivot, std::vector<Column>* others);
  std::vector<Rival> eliminate_in_order(std::vector<Column> columns);
  bool eliminate_panel(std::vector<Column>* columns);
  bool eliminate_panel_of_all(Screen* screen);
  bool eliminate_forecast(Screen* screen);
  std::vector<int64_t> prove(int64_t first, std::vector<Rival> rivals, Wide outside,
                             Candidates* candidates) const;
  void run_screened();
  void forget(int64_t first);
  bool done() const { return static_cast<int64_t>(pivots_.size()) == steps_; }

  const Matrix& matrix_;
  const int64_t steps_;
  // Norms are those of the scaled columns. They are converted to norms of W to compare columns.
  std::vector<double> norms_;
  std::vector<double> noise_;  // bound of the rounding error of a column's residual norm
  Reflectors reflectors_;
  std::vector<int64_t> pivots_;
  std::vector<double> diagonal_;
  std::vector<char> taken_;
};

}  // namespace recyclelora
