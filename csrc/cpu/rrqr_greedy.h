// QR with greedy column pivoting: the exact algorithm, for any matrix.

#pragma once

#include <cstdint>
#include <vector>

#include "rrqr_matrix.h"
#include "rrqr_reflectors.h"

namespace recyclelora {

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
  // A column with all reflections applied: rows from the number of pivots on are its residual.
  struct Column {
    int64_t index;
    double* data;
    double norm;
  };

  void load(const std::vector<int64_t>& columns);
  void eliminate(size_t i);
  bool choose(size_t* chosen) const;
  std::vector<int64_t> remaining() const;

  const Matrix& matrix_;
  const int64_t steps_;
  std::vector<double> noise_;  // what rounding may change in a column's residual norm
  Reflectors reflectors_;
  std::vector<int64_t> pivots_;
  std::vector<double> diagonal_;
  std::vector<char> taken_;
  std::vector<double> storage_;
  std::vector<Column> pool_;
};

}  // namespace recyclelora
