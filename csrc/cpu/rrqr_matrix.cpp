#include "rrqr_matrix.h"

#include <algorithm>
#include <limits>
#include <type_traits>

namespace recyclelora {
namespace {

// The largest magnitude; infinity where any value is not finite.
template <typename T>
double largest(const T* data, int64_t count) {
  T largest = 0;
  bool finite = true;
  for (int64_t i = 0; i < count; ++i) {
    const T magnitude = std::abs(data[i]);
    finite &= magnitude <= std::numeric_limits<T>::max();
    largest = std::max(largest, magnitude);
  }
  return finite ? static_cast<double>(largest) : std::numeric_limits<double>::infinity();
}

template <typename T>
void read_rows(const T* data, int64_t count, double scale, double* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = data[i] * scale;
}

template <typename T>
void read_columns(const T* data, int64_t rows, int64_t cols, const int64_t* indices, int64_t count,
                  double scale, double* out, int64_t stride) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < count; ++j) out[j * stride + i] = data[i * cols + indices[j]] * scale;
  }
}

}  // namespace

template <typename T>
Matrix::Matrix(const T* data, int64_t rows, int64_t cols)
    : data_(data), is_double_(std::is_same_v<T, double>), rows_(rows), cols_(cols) {
  const double magnitude = largest(data, rows * cols);
  finite_ = std::isfinite(magnitude);
  exponent_ = 0;
  if (finite_) std::frexp(magnitude, &exponent_);
  // Both the scale and its inverse must be normal numbers.
  exponent_ = std::clamp(exponent_, -1022, 1022);
  scale_ = std::ldexp(1.0, -exponent_);
}

template Matrix::Matrix(const float*, int64_t, int64_t);
template Matrix::Matrix(const double*, int64_t, int64_t);

void Matrix::read_rows(int64_t first, int64_t count, double* out) const {
  const int64_t offset = first * cols_, size = count * cols_;
  if (is_double_) {
    recyclelora::read_rows(static_cast<const double*>(data_) + offset, size, scale_, out);
  } else {
    recyclelora::read_rows(static_cast<const float*>(data_) + offset, size, scale_, out);
  }
}

void Matrix::read_columns(const int64_t* indices, int64_t count, double* out,
                          int64_t stride) const {
  if (is_double_) {
    recyclelora::read_columns(static_cast<const double*>(data_), rows_, cols_, indices, count,
                              scale_, out, stride);
  } else {
    recyclelora::read_columns(static_cast<const float*>(data_), rows_, cols_, indices, count,
                              scale_, out, stride);
  }
}

}  // namespace recyclelora
