// The product of a matrix with its transpose, which takes most of the time of rrqr for tall
// matrices.

#pragma once

#include <cstdint>

#include "large_array.h"
#include "linalg.h"
#include "rrqr_matrix.h"

namespace recyclelora {

// Adds products a a' to the lower triangle of c, whose upper triangle is then undefined. The
// columns of c are contiguous. One object is used for many products, because new memory for each
// product would take a tenth of its time.
class GramSum {
 public:
  // For products of at most `rows` rows and `cols` columns.
  GramSum(int64_t rows, int64_t cols);

  // c = beta c + alpha a a'. The columns of a are contiguous.
  void add(View<double> c, double beta, double alpha, View<double> a);
  // c = beta c + W' W for some rows of W.
  void add_rows(View<double> c, double beta, const Matrix& matrix, int64_t first, int64_t count);

 private:
  const LargeArray<Line<double>> panels_;  // of one product's a
};

}  // namespace recyclelora
