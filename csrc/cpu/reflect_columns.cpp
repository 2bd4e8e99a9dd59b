#include "reflect_columns.h"

namespace recyclelora {
namespace {

#define INLINE inline __attribute__((always_inline))

constexpr int64_t kAcross = 4;  // columns of Y at a time
static_assert(kMostReflections % kAcross == 0 && kReadBeyond == kAcross - 1);

template <typename T>
struct Types;
template <>
struct Types<float> {
  typedef float Vector __attribute__((vector_size(64)));
  typedef int32_t Lanes __attribute__((vector_size(64)));
  typedef float Row __attribute__((vector_size(kReflected * sizeof(float))));
};
template <>
struct Types<double> {
  typedef double Vector __attribute__((vector_size(64)));
  typedef int64_t Lanes __attribute__((vector_size(64)));
  typedef double Row __attribute__((vector_size(kReflected * sizeof(double))));
};

template <typename T>
INLINE auto& vector(const Line<T>& line) {
  return reinterpret_cast<const typename Types<T>::Vector&>(line);
}
template <typename T>
INLINE auto& vector(Line<T>& line) {
  return reinterpret_cast<typename Types<T>::Vector&>(line);
}

// Lane i of the first vector becomes the sum over the lanes of the i-th.
template <typename T>
INLINE void add_lanes(typename Types<T>::Vector* sums) {
  constexpr int64_t kLanes = Line<T>::kCount;
#pragma GCC unroll 4
  for (int64_t step = kLanes / 2; step > 0; step /= 2) {
    typename Types<T>::Lanes low, high;
#pragma GCC unroll 16
    for (int64_t i = 0; i < kLanes; ++i) {
      low[i] = i / (2 * step) * (2 * step) + i % step + i / step % 2 * kLanes;
      high[i] = low[i] + step;
    }
#pragma GCC unroll 8
    for (int64_t i = 0; i < step; ++i) {
      sums[i] = __builtin_shuffle(sums[i], sums[i + step], low) +
                __builtin_shuffle(sums[i], sums[i + step], high);
    }
  }
}

// products (row-major, columns of Y by kReflected) = Y'x, with the columns of Y up to a multiple of
// kAcross.
template <typename T>
INLINE void multiply(const ReflectionBlock<T>& block, const Line<T>* x, int64_t x_stride,
                     T* products) {
  using Vector = typename Types<T>::Vector;
  constexpr int64_t kSums = kAcross * kReflected, kLanes = Line<T>::kCount;
  for (int64_t j = 0; j < block.size; j += kAcross) {
    const Line<T>* const y = block.y + j * block.y_stride;
    Vector sums[kSums] = {};
    for (int64_t i = 0; i < block.lines; ++i) {
#pragma GCC unroll 4
      for (int64_t l = 0; l < kAcross; ++l) {
        const Vector factor = vector(y[l * block.y_stride + i]);
#pragma GCC unroll 4
        for (int64_t c = 0; c < kReflected; ++c) {
          sums[l * kReflected + c] += factor * vector(x[c * x_stride + i]);
        }
      }
    }
#pragma GCC unroll 2
    for (int64_t first = 0; first < kSums; first += kLanes) {
      add_lanes<T>(sums + first);
      *reinterpret_cast<Vector*>(products + j * kReflected + first) = sums[first];
    }
  }
}

// factors = T products, or T' products
template <typename T>
INLINE void combine(const ReflectionBlock<T>& block, bool transposed, const T* products,
                    T* factors) {
  using Row = typename Types<T>::Row;
  for (int64_t i = 0; i < block.size; ++i) {
    Row sum = {};
    for (int64_t l = transposed ? 0 : i; l < (transposed ? i + 1 : block.size); ++l) {
      const T factor = transposed ? block.t[i * block.size + l] : block.t[l * block.size + i];
      sum += *reinterpret_cast<const Row*>(products + l * kReflected) * factor;
    }
    *reinterpret_cast<Row*>(factors + i * kReflected) = sum;
  }
}

// x -= Y factors, in kLines lines
template <int64_t kLines, typename T>
INLINE void subtract_lines(const ReflectionBlock<T>& block, int64_t line, const T* factors,
                           Line<T>* x, int64_t x_stride) {
  using Vector = typename Types<T>::Vector;
  Vector left[kReflected][kLines];
#pragma GCC unroll 4
  for (int64_t c = 0; c < kReflected; ++c) {
#pragma GCC unroll 4
    for (int64_t i = 0; i < kLines; ++i) left[c][i] = vector(x[c * x_stride + line + i]);
  }
  for (int64_t j = 0; j < block.size; ++j) {
    Vector part[kLines];
#pragma GCC unroll 4
    for (int64_t i = 0; i < kLines; ++i) part[i] = vector(block.y[j * block.y_stride + line + i]);
#pragma GCC unroll 4
    for (int64_t c = 0; c < kReflected; ++c) {
#pragma GCC unroll 4
      for (int64_t i = 0; i < kLines; ++i) left[c][i] -= part[i] * factors[j * kReflected + c];
    }
  }
#pragma GCC unroll 4
  for (int64_t c = 0; c < kReflected; ++c) {
#pragma GCC unroll 4
    for (int64_t i = 0; i < kLines; ++i) vector(x[c * x_stride + line + i]) = left[c][i];
  }
}

template <typename T>
INLINE void reflect(const ReflectionBlock<T>& block, bool transposed, Line<T>* x,
                    int64_t x_stride) {
  alignas(64) T products[kMostReflections * kReflected], factors[kMostReflections * kReflected];
  multiply(block, x, x_stride, products);
  combine(block, transposed, products, factors);
  int64_t line = 0;
  for (; line + 4 <= block.lines; line += 4) subtract_lines<4>(block, line, factors, x, x_stride);
  for (; line < block.lines; ++line) subtract_lines<1>(block, line, factors, x, x_stride);
}

}  // namespace

RECYCLELORA_VECTOR_CLONES
void reflect_columns(const ReflectionBlock<float>& block, bool transposed, Line<float>* x,
                     int64_t x_stride) {
  reflect(block, transposed, x, x_stride);
}

RECYCLELORA_VECTOR_CLONES
void reflect_columns(const ReflectionBlock<double>& block, bool transposed, Line<double>* x,
                     int64_t x_stride) {
  reflect(block, transposed, x, x_stride);
}

}  // namespace recyclelora
