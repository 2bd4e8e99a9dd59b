// Strided views of matrices and their product, for the kernels of this folder.

#pragma once

#include <cstdint>
#include <type_traits>

#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm_cpu_dispatch.h>
#include <ATen/ops/from_blob.h>

namespace recyclelora {

// A matrix somewhere in memory; element (i, j) lies at data[i * row_stride + j * col_stride].
template <typename T>
struct View {
  T* data;
  int64_t rows, cols;
  int64_t row_stride, col_stride;

  View block(int64_t i, int64_t j, int64_t n_rows, int64_t n_cols) const {
    return {data + i * row_stride + j * col_stride, n_rows, n_cols, row_stride, col_stride};
  }
  View t() const { return {data, cols, rows, col_stride, row_stride}; }
  T* column(int64_t j) const { return data + j * col_stride; }
  T& operator()(int64_t i, int64_t j) const { return data[i * row_stride + j * col_stride]; }
  operator View<const T>() const { return {data, rows, cols, row_stride, col_stride}; }
};

template <typename T>
View<T> column_major(T* data, int64_t rows, int64_t cols, int64_t stride) {
  return {data, rows, cols, 1, stride};
}

template <typename T>
View<T> row_major(T* data, int64_t rows, int64_t cols, int64_t stride) {
  return {data, rows, cols, stride, 1};
}

// c = beta c + alpha a b. ATen's product, since that is the one BLAS that every build of libtorch
// offers: its Fortran symbols and at::native::cpublas are exported by some builds only. `at::cpu`
// bypasses the dispatcher, so it records no gradient and costs microseconds. All callers are inside
// at::parallel_for, where a product uses one thread, so its bits do not depend on their number.
// T is deduced from c; a and b may be views of T or of const T.
template <typename T>
void multiply_add(View<T> c, double beta, double alpha, View<const std::common_type_t<T>> a,
                  View<const std::common_type_t<T>> b) {
  if (c.rows == 0 || c.cols == 0) return;
  const auto tensor = [](View<const T> view) {
    return at::from_blob(const_cast<T*>(view.data), {view.rows, view.cols},
                         {view.row_stride, view.col_stride}, c10::CppTypeToScalarType<T>::value);
  };
  at::Tensor out = tensor(c);
  at::cpu::addmm_out(out, out, tensor(a), tensor(b), beta, alpha);
}

// Versions of a hot loop for the vector units of x86-64, selected when the library is loaded.
// Otherwise the compiler may only assume the oldest of them.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define RECYCLELORA_VECTOR_CLONES \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define RECYCLELORA_VECTOR_CLONES
#endif

}  // namespace recyclelora
