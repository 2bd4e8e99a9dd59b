// Householder reflections on few columns, where rrqr of wide matrices spends its time.

#pragma once

#include <cstdint>
#include <vector>

#include "large_array.h"
#include "linalg.h"

namespace recyclelora {

constexpr int64_t kReflected = 4;         // columns that are reflected at a time
constexpr int64_t kMostReflections = 64;  // in one block
constexpr int64_t kReadBeyond = 3;  // columns after the last one of Y: finite values, no effect

// The number of groups that are reflected together. The last one may be incomplete.
inline int64_t groups_of(int64_t columns) {
  return (columns + kReflected - 1) / kReflected;
}

// I - Y T Y', a product of reflections.
template <typename T>
struct ReflectionBlock {
  const Line<T>* y;  // y_stride lines a column, size columns and kReadBeyond more
  int64_t y_stride, lines, size;
  const T* t;  // column-major, upper triangular
};

// x <- (I - Y T Y') x, or (I - Y T' Y') x where transposed, for kReflected columns x.
void reflect_columns(const ReflectionBlock<float>& block, bool transposed, Line<float>* x,
                     int64_t x_stride);
void reflect_columns(const ReflectionBlock<double>& block, bool transposed, Line<double>* x,
                     int64_t x_stride);

}  // namespace recyclelora
