// One matrix of the input, read as float64 with each column scaled by a power of two.

#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <variant>
#include <vector>

#include "large_array.h"
#include "linalg.h"

namespace recyclelora {

// A norm of a column of W. Norms of two columns can differ by a factor of 2^2098, which double
// cannot represent.
using Wide = long double;
static_assert(std::numeric_limits<Wide>::max_exponent >= 4096,
              "rrqr compares norms of columns as long double, whose exponent must have at least 13 "
              "bits, as on x86-64 and 64-bit ARM under Linux");

// Contiguous rows of float or double. Column j is read as w_j 2^-e_j. Its largest magnitude is in
// [0.5, 1), or in [2^-53, 4) if 2^e_j would not be a normal number. The scale is exact, and squares
// of huge and tiny values neither overflow nor underflow. Reflections and products commute with it.
// Only a comparison between columns needs the scale of W, see `unscaled`.
class Matrix {
 public:
  template <typename T>
  Matrix(const T* data, int64_t rows, int64_t cols);

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t bytes() const {
    return std::visit([&](const auto* data) { return rows_ * cols_ * int64_t{sizeof *data}; },
                      data_);
  }
  bool finite() const { return finite_; }
  int exponent(int64_t column) const { return exponents_[column]; }
  // A norm or a bound of W's column, given that of the scaled column.
  Wide unscaled(int64_t column, double value) const { return value * units_[column]; }

  // Read the rows first .. first + count - 1, row-major in out.
  void read_rows(int64_t first, int64_t count, double* out) const;
  // Read the same rows in panels of 8 columns, one panel after the other: line i of a panel is row
  // first + i. The last panel is filled with zeros.
  void read_panels(int64_t first, int64_t count, Line<double>* out) const;
  // Keep a copy of the matrix in which columns are contiguous. Reading one column of the original
  // takes a page of memory for each row.
  void keep_columns();
  void read_column(int64_t index, double* out) const;

 private:
  std::variant<const float*, const double*> data_;
  int64_t rows_, cols_;
  bool finite_ = true;
  std::vector<int> exponents_;
  std::vector<double> scales_;  // 2^-exponent
  std::vector<Wide> units_;     // 2^exponent
  int64_t column_stride_ = 0;
  LargeArray<char> columns_;  // the copy of keep_columns, in the type of data_
};

}  // namespace recyclelora
