// Which columns may be pivots: upper bounds of residual norms, from float32.

#pragma once

#include <cstdint>
#include <vector>

#include "rrqr_matrix.h"

namespace recyclelora {

// The squared residual norm of column w is ||w||^2 less the squares of q'w for every column q of Q.
// Those products are taken of a float32 copy of W, which bounds the norm to about 1e-3 ||w||, and
// only when they matter: residual norms fall, so a bound from fewer columns of Q is a bound still,
// and a column that was short once waits long for its turn.
class Screen {
 public:
  Screen(const Matrix& matrix, const std::vector<double>& norms);

  // Takes these orthonormal columns out of all residuals. q has the coordinates of the copy.
  void project_out(View<double> q);
  // Brings bounds up to date, as many as decide which `count` are the largest, but for some
  // columns.
  void sharpen(int64_t count, const std::vector<char>& excluded);

  // Residuals known in float64 take the place of the copies, which makes the bounds sharp again:
  // first the row where they begin, then each.
  void begin_renewal(int64_t first_row);
  void renew(int64_t column, const double* residual, double norm);
  // The coordinates of the copy are those of Q' W for as many columns of Q.
  int64_t first_row() const { return first_row_; }

  // The residual norm lies between these, or has fallen lower since.
  double upper(int64_t column) const;
  double lower(int64_t column) const;

 private:
  static constexpr int64_t kLanes = 16;
  struct alignas(kLanes * sizeof(float)) Lanes {
    float values[kLanes];
  };
  void set_norm(int64_t column, double norm);
  void set_row(int64_t i, const double* values);
  void arrange(const std::vector<double>& norms);
  void bring_up_to_date(int64_t tile);

  const int64_t rows_, cols_;
  int64_t first_row_ = 0;
  // Tiles of kLanes columns, row after row; each column times its scale. Columns of like norms
  // share a tile: order_ is by falling norm.
  std::vector<Lanes> tiles_;
  std::vector<int64_t> order_, place_;
  std::vector<double> scale_, squares_, slack_;
  std::vector<float> q_;  // the columns to take out, in groups, each row after row
  int64_t groups_ = 0;
  std::vector<int64_t> applied_;  // groups that each tile's norms are without
};

}  // namespace recyclelora
