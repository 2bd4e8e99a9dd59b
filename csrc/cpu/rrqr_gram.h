// QR with greedy column pivoting by a Cholesky factorisation of W'W: the fast path for tall
// matrices.

#pragma once

#include <cstdint>
#include <vector>

#include "gram_sum.h"
#include "large_array.h"
#include "rrqr_matrix.h"

namespace recyclelora {

// P'W'W P = R'R, hence Q = W P R^{-1}. Squaring W loses half of the digits, so every pivot is
// certified: it is used only if no rounding error can have changed the choice. The decomposition
// stops at the first pivot that cannot be certified. One object is used for many matrices of a
// shape, because new memory for each matrix would take as much time as whole steps.
class GramQR {
 public:
  GramQR(int64_t rows, int64_t cols);

  // Decompose a matrix, which must stay in memory. The functions below refer to this matrix.
  void decompose(const Matrix& matrix);

  // The certified pivots, and their diagonal of R.
  const std::vector<int64_t>& pivots() const { return pivots_; }
  const std::vector<double>& diagonal() const { return diagonal_; }
  bool complete() const { return static_cast<int64_t>(pivots_.size()) == size_; }

  // Compute the columns of Q from `first` on, to the precision of float32. This is efficient for
  // few columns, and requires a complete decomposition.
  void columns_of_q(int64_t first, View<double> q) const;

 private:
  void start();
  void form();
  bool factor_block(int64_t begin, int64_t end);
  void set_units(int64_t step);
  bool certified_pivot(int64_t begin, int64_t step, int64_t* pivot);
  bool choose_pivot(int64_t step, int64_t* pivot);
  void exchange(int64_t begin, int64_t step, int64_t pivot);
  void exchange_rows(int64_t begin, const std::vector<int64_t>& exchanged);
  void combine_pivots(int64_t begin, int64_t step, int64_t j);
  void set_noise(int64_t j, const float* x, int64_t n);
  void keep_combination(int64_t step, int64_t end);
  void follow_growth(int64_t begin, int64_t end);
  void project_out(int64_t first, View<double> q) const;
  void combine_first(View<double> coefficients, View<double> q) const;
  void times_weight(View<double> coefficients, View<double> q) const;
  void weight_times(View<double> q, View<double> coefficients) const;

  const Matrix* matrix_ = nullptr;
  const int64_t size_;
  const double gram_precision_;
  GramSum sum_;
  // Not initialised, because one triangle of each square is never used.
  const LargeArray<double> rows_, l_storage_;
  const LargeArray<float> growth_storage_;
  const View<double> l_;  // lower triangle of W'W, which L = R' replaces step by step
  // The other columns as combinations x = R_11^{-1} R_12 e_j of the pivots before this block. A
  // rounding error E of W'W changes the squared residual norm of column j by [x; -1]' E [x; -1].
  // Float32, because the noise needs few digits.
  const View<float> growth_;
  // For each column, in the current order: its index in W, its squared norm, its squared residual
  // norm, the noise of the latter, a bound for the length of x with its rows multiplied by the
  // norms of the pivots, and the noise below which norms tie. Norms are those of the scaled
  // columns. Units convert them to one scale, in which the largest remaining column is near one.
  // Columns too small for this scale have the least unit.
  std::vector<int64_t> index_;
  std::vector<double> squares_, residual_, noise_, spread_, tie_, unit_;
  std::vector<float> combination_;  // x of one column, for all pivots before this step
  double largest_tie_ = 0;  // of the columns that remained when units were set, in that scale
  std::vector<int64_t> candidates_;  // for the next pivot
  std::vector<int64_t> pivots_;
  std::vector<double> diagonal_;
  double loss_ = 0;  // an upper bound for the distance of W P R^{-1} from orthonormal
};

}  // namespace recyclelora
