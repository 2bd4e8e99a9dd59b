#include "rrqr_matrix.h"

#include <algorithm>
#include <limits>
#include <type_traits>

namespace recyclelora {
namespace {

// The largest magnitude; infinity where any value is not finite.
template <typename T>
inline double largest_of(const T* data, int64_t count) {
  T largest = 0;
  int bad = 0;
#pragma omp simd reduction(max : largest) reduction(| : bad)
  for (int64_t i = 0; i < count; ++i) {
    const T magnitude = std::abs(data[i]);
    bad |= !(magnitude <= std::numeric_limits<T>::max());
    largest = magnitude > largest ? magnitude : largest;
  }
  return bad ? std::numeric_limits<double>::infinity() : static_cast<double>(largest);
}

RECYCLELORA_VECTOR_CLONES
double largest(const float* data, int64_t count) {
  return largest_of(data, count);
}
RECYCLELORA_VECTOR_CLONES
double largest(const double* data, int64_t count) {
  return largest_of(data, count);
}

RECYCLELORA_VECTOR_CLONES
void read_rows(const float* data, int64_t count, double scale, double* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = data[i] * scale;
}
RECYCLELORA_VECTOR_CLONES
void read_rows(const double* data, int64_t count, double scale, double* out) {
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
