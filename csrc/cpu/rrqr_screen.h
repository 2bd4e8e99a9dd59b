// Which columns may be pivots: upper bounds of residual norms, from float32.

#pragma once

#include <cstdint>
#include <vector>

#include "rrqr_matrix.h"

namespace recyclelora {

// The squared residual norm of column w is ||w||^2 less the squares of q'w for every column q of Q.
// Those products are taken of a float32 copy of W, which bounds the norm to about 1e-3 ||w||.
class Screen {
 public:
  Screen(const Matrix& matrix, const std::vector<double>& norms);

  // Takes these orthonormal columns out of all residuals. q has the coordinates of the copy.
  void project_out(View<double> q);

  // Residuals known in float64 take the place of the copies, which makes the bounds sharp again:
  // first the row where they begin, then each.
  void begin_renewal(int64_t first_row) { first_row_ = first_row; }
  void renew(int64_t column, const double* residual, double norm);
  // The coordinates of the copy are those of Q' W for as many columns of Q.
  int64_t first_row() const { return first_row_; }

  // The residual norm lies between these, or has fallen lower since the last projection.
  double upper(int64_t column) const;
  double lower(int64_t column) const;

 private:
  static constexpr int64_t kLanes = 16;
  struct alignas(kLanes * sizeof(float)) Lanes {
    float values[kLanes];
  };
  void set_norm(int64_t column, double norm);

  const int64_t rows_, cols_;
  int64_t first_row_ = 0;
  // Tiles of kLanes columns, row after row; each column times its scale.
  std::vector<Lanes> tiles_;
  std::vector<double> scale_, squares_, slack_;
};

}  // namespace recyclelora
