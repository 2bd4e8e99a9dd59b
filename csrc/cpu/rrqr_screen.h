// Bounds of residual norms in float32, which select the columns that may be pivots.

#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "large_array.h"
#include "reflect_columns.h"
#include "rrqr_matrix.h"
#include "rrqr_reflectors.h"

namespace recyclelora {

// Reflections in float32, transposed: I - Y T' Y'.
class FloatReflections {
 public:
  explicit FloatReflections(const Reflectors::Block& block);

  // Reflects kReflected columns of `lines` lines each, of which the last ones are the block's rows.
  void apply(Line<float>* columns, int64_t lines) const;

 private:
  int64_t size_, lines_;
  std::vector<Line<float>> y_;
  std::vector<float> t_;
};

// A float32 copy of W after the reflections of Q'. The part of a column below the rows of R is its
// residual. The bound of its norm is accurate to about 1e-5 of the column's norm. A column is
// reflected only if its bound could decide a pivot: residual norms never increase, so a bound from
// fewer reflections stays valid.
class Screen {
 public:
  // The norms of the matrix's columns, as they are read.
  Screen(const Matrix& matrix, const std::vector<double>& norms);

  // Appends a block, which is applied to each column when the column is updated.
  void reflect(const Reflectors::Block& block);
  // Updates as many columns as are needed to find the `count` largest ones among all but some.
  void sharpen(int64_t count, const std::vector<char>& excluded);
  // Upper bound of the residual norm of the scaled column.
  double upper(int64_t column) const { return norms_[column] + slack_[column]; }
  // A norm of the column as it is read, times a power of two that sharpen chooses: all columns then
  // have one scale, and the largest bound is not far from one. Columns too small for that seem
  // larger than they are.
  double relative(int64_t column, double norm) const { return norm * relative_[column]; }
  Wide unscaled(double relative) const { return relative * reference_; }

  // Residuals known in float64 take the place of the copies, which makes the bounds sharp again:
  // first the row where they begin, then each.
  void begin_renewal(int64_t first_row);
  void renew(int64_t column, const double* residual, double norm);

  // A column of sharpen's: W's times a power of two that brings its norm near one, and lines whose
  // last rows are the residual.
  const Line<float>* column(int64_t column) const { return &values_[place_[column] * lines_]; }
  int64_t lines() const { return lines_; }
  Wide scale(int64_t column) const { return scale_[column] / matrix_.unscaled(column, 1); }
  // Bound of the rounding error of the norm in upper().
  double slack(int64_t column) const { return slack_[column]; }

 private:
  void arrange(const std::vector<double>& norms);
  void set_norm(int64_t column, double norm);
  void set_reference(const std::vector<char>& excluded);
  template <typename Use>
  void bounds_of(int64_t group, const std::vector<char>& excluded, const Use& use) const;
  std::vector<std::pair<double, int64_t>> largest_bounds(const std::vector<char>& excluded) const;
  void bring_up_to_date(int64_t group);
  float& at(int64_t i, int64_t column) {
    return values_[place_[column] * lines_ + i / Line<float>::kCount]
        .values[i % Line<float>::kCount];
  }

  const Matrix& matrix_;
  const int64_t rows_, cols_, lines_;
  int64_t row_ = 0;  // where residuals begin, with all reflections
  std::vector<FloatReflections> reflections_;
  // Columns are kept in descending order of their norms, because kReflected of them are updated
  // together.
  std::vector<Line<float>, LargeAllocator<Line<float>>> values_;
  std::vector<int64_t> order_, place_;
  std::vector<double> scale_, norms_, slack_, relative_;
  Wide reference_;
  std::vector<size_t> applied_;  // reflections that each group has
};

}  // namespace recyclelora
