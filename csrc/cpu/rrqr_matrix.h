// One matrix of the input, read as float64 times a power of two.

#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "linalg.h"

namespace recyclelora {

// Contiguous rows of float or double. Everything reads it through this scale, under which its
// largest magnitude lies in [0.5, 1): exact, and squares of huge and tiny values neither overflow
// nor vanish.
class Matrix {
 public:
  template <typename T>
  Matrix(const T* data, int64_t rows, int64_t cols);

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  bool finite() const { return finite_; }
  int exponent() const { return exponent_; }  // entries are read as themselves times 2^-exponent

  // Rows first .. first + count - 1, row-major in out.
  void read_rows(int64_t first, int64_t count, double* out) const;
  // Some columns, each contiguous in out, stride apart.
  void read_columns(const int64_t* indices, int64_t count, double* out, int64_t stride) const;

 private:
  const void* data_;
  bool is_double_;
  int64_t rows_, cols_;
  bool finite_;
  int exponent_;
  double scale_;
};

}  // namespace recyclelora
