// QR with greedy column pivoting by Householder reflections: the exact algorithm, for any matrix.

#pragma once

#include <cstdint>
#include <vector>

#include "rrqr_candidates.h"
#include "rrqr_matrix.h"
#include "rrqr_reflectors.h"
#include "rrqr_screen.h"

namespace recyclelora {

// The pivots are those of the plain algorithm, which keeps all residuals in float64. Where there
// are many columns, that is spent on few of them: float32 forecasts some pivots, float64 factors
// them, and their exact norms prove each against bounds of all the others. A column that comes too
// close to a pivot for its bound to tell is decided in float64 as well. Where a forecast does not
// hold, all columns take part in float64.
class GreedyQR {
 public:
  explicit GreedyQR(const Matrix& matrix);

  // Factors these columns first, in this order.
  void take(const std::vector<int64_t>& columns);
  // Factors the rest, each step the column with the largest residual norm.
  void run();

  // The columns of W in the order they were taken, and the diagonal of R, signs included.
  const std::vector<int64_t>& pivots() const { return pivots_; }
  const std::vector<double>& diagonal() const { return diagonal_; }
  // q's columns are those of Q from first on, signed so that R's diagonal is not negative.
  void columns_of_q(int64_t first, View<double> q) const;

 private:
  struct Column {
    int64_t index;
    double* data;  // Q'w; the rows from the number of pivots on are the residual
    double norm;   // the residual's
  };
  // A column whose residual norms before each of some pivots are known, until it is taken.
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
  // Norms are of the columns as the matrix is read, and become W's where columns are compared.
  std::vector<double> norms_;
  std::vector<double> noise_;  // what rounding may change in a column's residual norm
  Reflectors reflectors_;
  std::vector<int64_t> pivots_;
  std::vector<double> diagonal_;
  std::vector<char> taken_;
};

}  // namespace recyclelora
