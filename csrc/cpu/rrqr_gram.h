// QR with greedy column pivoting by Cholesky's decomposition of W'W: the fast path of tall
// matrices.

#pragma once

#include <cstdint>
#include <vector>

#include "large_array.h"
#include "rrqr_matrix.h"

namespace recyclelora {

// P'W'W P = R'R, hence Q = W P R^{-1}. Squaring W loses half of its digits, so every pivot is
// certified: it is taken only if no rounding can have changed the choice, and the decomposition
// stops at the first that cannot be. One object serves many matrices of a shape: fresh memory for
// each would cost as much as the arithmetic of whole steps.
class GramQR {
 public:
  GramQR(int64_t rows, int64_t cols);

  // What follows is of the matrix decomposed last, which must still be there.
  void decompose(const Matrix& matrix);

  // The columns that were certified, and the diagonal of R there.
  const std::vector<int64_t>& pivots() const { return pivots_; }
  const std::vector<double>& diagonal() const { return diagonal_; }
  bool complete() const { return static_cast<int64_t>(pivots_.size()) == size_; }

  // q's columns are those of Q from first on, to float32's precision; for few columns, and where
  // the decomposition is complete.
  void columns_of_q(int64_t first, View<double> q) const;

 private:
  void start();
  void form();
  bool factor_block(int64_t begin, int64_t end);
  void set_units(int64_t step);
  bool certified_pivot(int64_t step, int64_t* pivot);
  void exchange(int64_t begin, int64_t step, int64_t pivot);
  void exchange_rows(int64_t begin, const std::vector<int64_t>& exchanged);
  void follow_growth(int64_t begin, int64_t end);
  void project_out(int64_t first, View<double> q) const;
  void combine_first(View<double> coefficients, View<double> q) const;
  void times_weight(View<double> coefficients, View<double> q) const;
  void weight_times(View<double> q, View<double> coefficients) const;

  const Matrix* matrix_ = nullptr;
  const int64_t size_;
  const double gram_precision_;
  // Not initialised: one triangle of each square is never touched.
  const LargeArray<double> rows_, l_storage_;
  const LargeArray<float> growth_storage_;
  const View<double> l_;      // lower triangle of W'W, step by step overwritten by L = R'
  const View<float> growth_;  // R_11^{-1} R_12: the other columns in terms of the pivots
  // Of each column, in the current order: index in W, squared norm, squared residual norm, the
  // noise of the latter, and the noise under which norms tie; norms are of the columns as the
  // matrix is read. Units bring them to one scale, under which the largest remaining column is near
  // one; columns too small for that have the least unit.
  std::vector<int64_t> index_;
  std::vector<double> squares_, residual_, noise_, tie_, unit_;
  double largest_tie_ = 0;           // of the remaining columns when units were set, in that scale
  std::vector<int64_t> candidates_;  // for the next pivot
  std::vector<int64_t> pivots_;
  std::vector<double> diagonal_;
  double loss_ = 0;  // how far W P R^{-1} is from orthonormal, at most
};

}  // namespace recyclelora
