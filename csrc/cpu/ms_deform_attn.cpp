// Multi-scale deformable attention (Deformable DETR, eq. 3) and its gradients on the CPU.
//
// A head reads few rows of `channels` values for each query, so the loops over channels are the
// vectorised ones, and the samples are never stored. The gradient of a value is the sum over the
// queries that read it. One thread computes all of them for an image and a head, in the order of
// the queries, so the bits do not depend on the number of threads.

#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include "linalg.h"

namespace recyclelora {
namespace {

using at::Tensor;

// The contiguous arguments. Indices are in the order of the sizes: value (images, positions, heads,
// channels), locations (images, queries, heads, levels, points, 2) as (x, y), and weights (images,
// queries, heads, levels, points).
template <typename T>
struct Arguments {
  const T *value, *locations, *weights;
  std::vector<int64_t> sides;  // height and width of each level
  int64_t images, positions, heads, channels, queries, levels, points;

  int64_t samples() const { return levels * points; }  // of a query and a head
};

// One of the four positions around a sample, its share of the sample, and the derivatives of the
// share with respect to the column and the row of the sample.
template <typename T>
struct Corner {
  int64_t position;
  T share, by_column, by_row;
};

// Write the corners inside the map, and return their number. If a coordinate is NaN, the sample is
// NaN.
template <typename T>
inline __attribute__((always_inline)) int64_t find_corners(const T* location, int64_t height,
                                                           int64_t width, Corner<T>* corners) {
  const T x = location[0] * width - T(0.5), y = location[1] * height - T(0.5);
  if (std::isnan(x) || std::isnan(y)) {
    constexpr T nan = std::numeric_limits<T>::quiet_NaN();
    corners[0] = {0, nan, nan, nan};
    return 1;
  }
  if (x <= -1 || x >= width || y <= -1 || y >= height) return 0;
  const T left = std::floor(x), top = std::floor(y);
  int64_t count = 0;
  for (const int64_t below : {0, 1}) {
    for (const int64_t right : {0, 1}) {
      const int64_t row = static_cast<int64_t>(top) + below;
      const int64_t column = static_cast<int64_t>(left) + right;
      if (row < 0 || row >= height || column < 0 || column >= width) continue;
      const T in_x = right ? x - left : 1 - (x - left), in_y = below ? y - top : 1 - (y - top);
      corners[count++] = {row * width + column, in_x * in_y, right ? in_y : -in_y,
                          below ? in_x : -in_x};
    }
  }
  return count;
}

// Add the samples to the rows begin to end of the output (images * queries, heads, channels).
template <typename T>
inline __attribute__((always_inline)) void add_samples(const Arguments<T>& a, int64_t channels,
                                                       int64_t begin, int64_t end, T* out) {
  const int64_t stride = a.heads * channels;  // from one position to the next
  Corner<T> corners[4];
  for (int64_t i = begin * a.heads; i < end * a.heads; ++i) {
    const int64_t image = i / (a.heads * a.queries), head = i % a.heads;
    const T* map = a.value + image * a.positions * stride + head * channels;
    T* sum = out + i * channels;
    for (int64_t level = 0, sample = i * a.samples(); level < a.levels; ++level) {
      const int64_t height = a.sides[2 * level], width = a.sides[2 * level + 1];
      for (int64_t point = 0; point < a.points; ++point, ++sample) {
        const int64_t count = find_corners(a.locations + 2 * sample, height, width, corners);
        for (int64_t c = 0; c < count; ++c) {
          const T* x = map + corners[c].position * stride;
          const T factor = a.weights[sample] * corners[c].share;
#pragma omp simd
          for (int64_t k = 0; k < channels; ++k) sum[k] += factor * x[k];
        }
      }
      map += height * width * stride;
    }
  }
}

// The gradients that one image and head contribute; that of value is initially zero.
template <typename T>
inline __attribute__((always_inline)) void add_gradients(const Arguments<T>& a, int64_t channels,
                                                         int64_t image, int64_t head, const T* grad,
                                                         T* d_value, T* d_locations, T* d_weights) {
  const int64_t stride = a.heads * channels;
  Corner<T> corners[4];
  for (int64_t query = 0; query < a.queries; ++query) {
    const int64_t i = (image * a.queries + query) * a.heads + head;
    const T* dy = grad + i * channels;
    int64_t first = image * a.positions * stride + head * channels;
    for (int64_t level = 0, sample = i * a.samples(); level < a.levels; ++level) {
      const int64_t height = a.sides[2 * level], width = a.sides[2 * level + 1];
      for (int64_t point = 0; point < a.points; ++point, ++sample) {
        const int64_t count = find_corners(a.locations + 2 * sample, height, width, corners);
        T d_weight = 0, d_column = 0, d_row = 0;
        for (int64_t c = 0; c < count; ++c) {
          const int64_t at = first + corners[c].position * stride;
          const T *x = a.value + at, factor = a.weights[sample] * corners[c].share;
          T *dx = d_value + at, product = 0;
#pragma omp simd reduction(+ : product)
          for (int64_t k = 0; k < channels; ++k) {
            product += dy[k] * x[k];
            dx[k] += factor * dy[k];
          }
          d_weight += corners[c].share * product;
          d_column += corners[c].by_column * product;
          d_row += corners[c].by_row * product;
        }
        d_weights[sample] = d_weight;
        d_locations[2 * sample] = a.weights[sample] * width * d_column;
        d_locations[2 * sample + 1] = a.weights[sample] * height * d_row;
      }
      first += height * width * stride;
    }
  }
}

// Compiled for each dtype and vector unit: the attribute of the clones excludes templates. Loops of
// 32 channels, the width of a head in the paper, are compiled without a remainder.
RECYCLELORA_VECTOR_CLONES
void sample(const Arguments<float>& a, int64_t begin, int64_t end, float* out) {
  if (a.channels == 32) return add_samples(a, 32, begin, end, out);
  add_samples(a, a.channels, begin, end, out);
}

RECYCLELORA_VECTOR_CLONES
void sample(const Arguments<double>& a, int64_t begin, int64_t end, double* out) {
  add_samples(a, a.channels, begin, end, out);
}

RECYCLELORA_VECTOR_CLONES
void differentiate(const Arguments<float>& a, int64_t image, int64_t head, const float* grad,
                   float* d_value, float* d_locations, float* d_weights) {
  if (a.channels == 32)
    return add_gradients(a, 32, image, head, grad, d_value, d_locations, d_weights);
  add_gradients(a, a.channels, image, head, grad, d_value, d_locations, d_weights);
}

RECYCLELORA_VECTOR_CLONES
void differentiate(const Arguments<double>& a, int64_t image, int64_t head, const double* grad,
                   double* d_value, double* d_locations, double* d_weights) {
  add_gradients(a, a.channels, image, head, grad, d_value, d_locations, d_weights);
}

void check(const Tensor& value, at::IntArrayRef sides, const Tensor& locations,
           const Tensor& weights) {
  TORCH_CHECK_VALUE(value.dim() == 4 && locations.dim() == 6 && weights.dim() == 5,
                    "ms_deform_attn: expected value (N, S, heads, d), locations (N, Q, heads, L, "
                    "P, 2) and weights (N, Q, heads, L, P), got shapes ",
                    value.sizes(), ", ", locations.sizes(), " and ", weights.sizes());
  const int64_t levels = weights.size(3);
  TORCH_CHECK_VALUE(locations.size(5) == 2 && locations.sizes().slice(0, 5) == weights.sizes() &&
                        value.size(0) == weights.size(0) && value.size(2) == weights.size(2) &&
                        static_cast<int64_t>(sides.size()) == 2 * levels,
                    "ms_deform_attn: the shapes do not fit: value ", value.sizes(), ", locations ",
                    locations.sizes(), ", weights ", weights.sizes(), " and the sides ", sides);
  int64_t positions = 0;
  for (int64_t level = 0; level < levels; ++level) {
    TORCH_CHECK_VALUE(sides[2 * level] > 0 && sides[2 * level + 1] > 0,
                      "ms_deform_attn: expected positive sides of every level, got ", sides);
    positions += sides[2 * level] * sides[2 * level + 1];
  }
  TORCH_CHECK_VALUE(positions == value.size(1), "ms_deform_attn: the levels of sides ", sides,
                    " have ", positions, " positions, value has ", value.size(1));
  for (const Tensor* tensor : {&value, &locations, &weights}) {
    TORCH_CHECK_VALUE(
        (tensor->scalar_type() == at::kFloat || tensor->scalar_type() == at::kDouble) &&
            tensor->scalar_type() == value.scalar_type(),
        "ms_deform_attn: expected all tensors in float32 or all in float64, got ",
        value.scalar_type(), " and ", tensor->scalar_type());
  }
}

template <typename T>
Arguments<T> arguments(const Tensor& value, at::IntArrayRef sides, const Tensor& locations,
                       const Tensor& weights) {
  return {value.const_data_ptr<T>(),
          locations.const_data_ptr<T>(),
          weights.const_data_ptr<T>(),
          sides.vec(),
          value.size(0),
          value.size(1),
          value.size(2),
          value.size(3),
          weights.size(1),
          weights.size(3),
          weights.size(4)};
}

Tensor forward(const Tensor& value, at::IntArrayRef sides, const Tensor& locations,
               const Tensor& weights) {
  check(value, sides, locations, weights);
  const Tensor v = value.contiguous(), l = locations.contiguous(), w = weights.contiguous();
  const int64_t n = value.size(0), queries = weights.size(1);
  const Tensor out = at::zeros({n, queries, value.size(2) * value.size(3)}, value.options());
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const auto a = arguments<T>(v, sides, l, w);
    at::parallel_for(0, n * queries, 64, [&](int64_t begin, int64_t end) {
      sample(a, begin, end, out.mutable_data_ptr<T>());
    });
  };
  value.scalar_type() == at::kFloat ? run(0.0F) : run(0.0);
  return out;
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad, const Tensor& value,
                                            at::IntArrayRef sides, const Tensor& locations,
                                            const Tensor& weights) {
  check(value, sides, locations, weights);
  const int64_t heads = value.size(2);
  const std::vector<int64_t> shape = {value.size(0), weights.size(1), heads * value.size(3)};
  TORCH_CHECK_VALUE(grad.sizes() == shape && grad.scalar_type() == value.scalar_type(),
                    "ms_deform_attn_backward: expected a gradient of shape ", shape, " and ",
                    value.scalar_type(), ", got ", grad.sizes(), " and ", grad.scalar_type());
  const Tensor g = grad.contiguous(), v = value.contiguous(), l = locations.contiguous();
  const Tensor w = weights.contiguous();
  const Tensor d_value = at::zeros_like(v), d_locations = at::empty_like(l);
  const Tensor d_weights = at::empty_like(w);
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const auto a = arguments<T>(v, sides, l, w);
    at::parallel_for(0, a.images * heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        differentiate(a, i / heads, i % heads, g.const_data_ptr<T>(), d_value.mutable_data_ptr<T>(),
                      d_locations.mutable_data_ptr<T>(), d_weights.mutable_data_ptr<T>());
      }
    });
  };
  value.scalar_type() == at::kFloat ? run(0.0F) : run(0.0);
  return {d_value, d_locations, d_weights};
}

}  // namespace
}  // namespace recyclelora

TORCH_LIBRARY_IMPL(recyclelora, CPU, m) {
  m.impl("ms_deform_attn", &recyclelora::forward);
  m.impl("ms_deform_attn_backward", &recyclelora::backward);
}
