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

RECYCLELORA_VECTOR_CLONES
void read_row(const float* row, int64_t count, double scale, double* out) {
#pragma omp simd
  for (int64_t j = 0; j < count; ++j) out[j] = row[j] * scale;
}
RECYCLELORA_VECTOR_CLONES
void read_row(const double* row, int64_t count, double scale, double* out) {
#pragma omp simd
  for (int64_t j = 0; j < count; ++j) out[j] = row[j] * scale;
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

template <typename T>
void transpose(const T* data, int64_t rows, int64_t cols, T* out, int64_t stride) {
  constexpr int64_t kRows = 8;
  for (int64_t first = 0; first < rows; first += kRows) {
    const int64_t end = std::min(first + kRows, rows);
    for (int64_t j = 0; j < cols; ++j) {
      for (int64_t i = first; i < end; ++i) out[j * stride + i] = data[i * cols + j];
    }
  }
}

}  // namespace

template <typename T>
Matrix::Matrix(const T* data, int64_t rows, int64_t cols)
    : data_(data), rows_(rows), cols_(cols), exponents_(cols, kLeast), scales_(cols), units_(cols) {
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
  std::visit(
      [&](const auto* data) {
        recyclelora::read_rows(data + first * cols_, count, cols_, scales_.data(), out);
      },
      data_);
}

void Matrix::read_panels(int64_t first, int64_t count, Line<double>* out) const {
  std::visit(
      [&](const auto* data) {
        recyclelora::read_panels(data + first * cols_, count, cols_, scales_.data(), out);
      },
      data_);
}

void Matrix::keep_columns() {
  // Columns a power of two apart would compete for the same cache lines.
  column_stride_ = rows_ + 64 / sizeof(float);
  std::visit(
      [&](const auto* data) {
        using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
        columns_ = large_array<char>(column_stride_ * cols_ * sizeof(T));
        transpose(data, rows_, cols_, reinterpret_cast<T*>(columns_.get()), column_stride_);
      },
      data_);
}

void Matrix::read_column(int64_t index, double* out) const {
  const double scale = scales_[index];
  std::visit(
      [&](const auto* data) {
        if (columns_) {
          const auto* const columns = reinterpret_cast<decltype(data)>(columns_.get());
          read_row(columns + index * column_stride_, rows_, scale, out);
        } else {
          for (int64_t i = 0; i < rows_; ++i) out[i] = data[i * cols_ + index] * scale;
        }
      },
      data_);
}

}  // namespace recyclelora
