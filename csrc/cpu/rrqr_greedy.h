// QR with greedy column pivoting by Householder reflections: the exact algorithm, for any matrix.

#pragma once

#include <cstdint>
#include <vector>

#include "rrqr_matrix.h"
#include "rrqr_reflectors.h"
#include "rrqr_screen.h"

namespace recyclelora {

// Only the columns of a pool are kept in float64, with every reflection applied, so that their
// residual norms are exact to rounding. A pivot is taken from the pool when no column outside can
// come before it, by the bounds of a float32 screen. Where that stays open all columns enter the
// pool. So the pivots are those of the plain algorithm, whose cost is spent on few columns.
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
    double* data;  // rows from the number of pivots on are the residual
    double norm;   // the residual's
  };
  enum class Choice { kCertain, kOpen, kNoneLeft };
  // What is known of the columns that are not in the pool.
  struct Outside {
    double largest;              // of upper bound minus noise
    std::vector<double> before;  // of upper bound plus noise, over all lower indices
  };

  void add(const std::vector<int64_t>& columns, double* storage);
  void eliminate(size_t i);
  int64_t eliminate_panel(const Screen* screen, Choice* end);
  Choice choose(const Outside& outside, size_t* chosen) const;
  Outside look_outside(const Screen* screen) const;
  void refill(const Screen& screen);
  void add_to_storage(const std::vector<int64_t>& columns);
  void project_out(int64_t first, Screen* screen) const;
  void complete_q();
  void run_screened();
  void empty_pool();
  bool run_on_all(Screen* screen);
  bool done() const { return static_cast<int64_t>(pivots_.size()) == steps_; }
  std::vector<int64_t> remaining() const;

  const Matrix& matrix_;
  const int64_t steps_;
  std::vector<double> norms_;  // of W's columns
  std::vector<double> noise_;  // what rounding may change in a column's residual norm
  Reflectors reflectors_;
  std::vector<int64_t> pivots_;
  std::vector<double> diagonal_;
  std::vector<char> taken_, pooled_;
  // Columns base_ on of Q as it was when there were base_ pivots: Z'w is what is left of a column.
  // While base_ is zero there is no Z, and all of w is left.
  std::vector<double> z_;
  int64_t base_ = 0;
  std::vector<double> storage_;
  std::vector<double*> free_;  // places for columns in storage_
  std::vector<Column> pool_;
};

}  // namespace recyclelora
