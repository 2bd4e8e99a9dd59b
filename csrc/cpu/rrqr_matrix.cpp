#include "rrqr_matrix.h"

#include <algorithm>
#include <limits>
#include <type_traits>

namespace recyclelora {
namespace {

constexpr int kLeast = -1022;  // 2^e and 2^-e are both normal numbers

// largest = max(largest, |row|); whether all of row is finite.
template <typename T>
inline bool update_largest_of(const T* row, int64_t count, T* largest) {
  int bad = 0;
#pragma omp simd reduction(| : bad)
  for (int64_t j = 0; j < count; ++j) {
    const T magnitude = std::abs(row[j]);
    bad |= !(magnitude <= std::numeric_limits<T>::max());
    largest[j] = magnitude > largest[j] ? magnitude : largest[j];
  }
  return !bad;
}

RECYCLELORA_VECTOR_CLONES
bool update_largest(const float* row, int64_t count, float* largest) {
  return update_largest_of(row, count, largest);
}
RECYCLELORA_VECTOR_CLONES
bool update_largest(const double* row, int64_t count, double* largest) {
  return update_largest_of(row, count, largest);
}

RECYCLELORA_VECTOR_CLONES
void read_row(const float* row, int64_t count, const double* scales, double* out) {
#pragma omp simd
  for (int64_t j = 0; j < count; ++j) out[j] = row[j] * scales[j];
}
RECYCLELORA_VECTOR_CLONES
void read_row(const double* row, int64_t count, const double* scales, double* out) {
#pragma omp simd
  for (int64_t j = 0; j < count; ++j) out[j] = row[j] * scales[j];
}

template <typename T>
void read_rows(const T* data, int64_t rows, int64_t cols, const double* scales, double* out) {
  for (int64_t i = 0; i < rows; ++i) read_row(data + i * cols, cols, scales, out + i * cols);
}

// The columns of one panel.
template <typename T>
inline void read_panel_of(const T* data, int64_t stride, int64_t rows, const double* scales,
                          Line<double>* out) {
  for (int64_t i = 0; i < rows; ++i) {
#pragma GCC unroll 8
    for (int64_t j = 0; j < Line<double>::kCount; ++j) {
      out[i].values[j] = data[i * stride + j] * scales[j];
    }
  }
}

RECYCLELORA_VECTOR_CLONES
void read_panel(const float* data, int64_t stride, int64_t rows, const double* scales,
                Line<double>* out) {
  read_panel_of(data, stride, rows, scales, out);
}
RECYCLELORA_VECTOR_CLONES
void read_panel(const double* data, int64_t stride, int64_t rows, const double* scales,
                Line<double>* out) {
  read_panel_of(data, stride, rows, scales, out);
}

// A few rows at a time, because rows a power of two apart compete for the same cache lines.
template <typename T>
void read_panels(const T* data, int64_t rows, int64_t cols, const double* scales,
                 Line<double>* out) {
  constexpr int64_t kRows = 8, kWidth = Line<double>::kCount;
  for (int64_t first = 0; first < rows; first += kRows) {
    const int64_t count = std::min(kRows, rows - first);
    for (int64_t j = 0; j < cols; j += kWidth) {
      const T* const in = data + first * cols + j;
      Line<double>* const panel = out + j / kWidth * rows + first;
      if (j + kWidth <= cols) {
        read_panel(in, cols, count, scales + j, panel);
        continue;
      }
      for (int64_t i = 0; i < count; ++i) {
        panel[i] = {};
        for (int64_t l = 0; j + l < cols; ++l)
          panel[i].values[l] = in[i * cols + l] * scales[j + l];
      }
    }
  }
}

// A cache line of each column at a time: columns a power of two apart compete for the same lines.
template <typename T>
void read_columns(const T* data, int64_t rows, int64_t cols, const int64_t* indices, int64_t count,
                  const double* scales, double* out, int64_t stride) {
  constexpr int64_t kRows = 64 / sizeof(double);
  for (int64_t first = 0; first < rows; first += kRows) {
    const int64_t n = std::min(kRows, rows - first);
    const T* const row = data + first * cols;
    for (int64_t j = 0; j < count; ++j) {
      const T* const in = row + indices[j];
      const double scale = scales[indices[j]];
      for (int64_t i = 0; i < n; ++i) out[j * stride + first + i] = in[i * cols] * scale;
    }
  }
}

}  // namespace

template <typename T>
Matrix::Matrix(const T* data, int64_t rows, int64_t cols)
    : data_(data),
      is_double_(std::is_same_v<T, double>),
      rows_(rows),
      cols_(cols),
      exponents_(cols, kLeast),
      scales_(cols),
      units_(cols) {
  std::vector<T> largest(cols);
  for (int64_t i = 0; i < rows; ++i) {
    finite_ = update_largest(data + i * cols, cols, largest.data()) && finite_;
  }
  for (int64_t j = 0; j < cols; ++j) {
    if (finite_ && largest[j] > 0) std::frexp(static_cast<double>(largest[j]), &exponents_[j]);
    exponents_[j] = std::clamp(exponents_[j], kLeast, -kLeast);
    scales_[j] = std::ldexp(1.0, -exponents_[j]);
    units_[j] = std::ldexp(1.0, exponents_[j]);
  }
}

template Matrix::Matrix(const float*, int64_t, int64_t);
template Matrix::Matrix(const double*, int64_t, int64_t);

void Matrix::read_rows(int64_t first, int64_t count, double* out) const {
  const int64_t offset = first * cols_;
  if (is_double_) {
    recyclelora::read_rows(static_cast<const double*>(data_) + offset, count, cols_, scales_.data(),
                           out);
  } else {
    recyclelora::read_rows(static_cast<const float*>(data_) + offset, count, cols_, scales_.data(),
                           out);
  }
}

void Matrix::read_panels(int64_t first, int64_t count, Line<double>* out) const {
  const int64_t offset = first * cols_;
  if (is_double_) {
    recyclelora::read_panels(static_cast<const double*>(data_) + offset, count, cols_,
                             scales_.data(), out);
  } else {
    recyclelora::read_panels(static_cast<const float*>(data_) + offset, count, cols_,
                             scales_.data(), out);
  }
}

void Matrix::read_columns(const int64_t* indices, int64_t count, double* out,
                          int64_t stride) const {
  if (is_double_) {
    recyclelora::read_columns(static_cast<const double*>(data_), rows_, cols_, indices, count,
                              scales_.data(), out, stride);
  } else {
    recyclelora::read_columns(static_cast<const float*>(data_), rows_, cols_, indices, count,
                              scales_.data(), out, stride);
  }
}

}  // namespace recyclelora
