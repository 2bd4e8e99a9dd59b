// What the CPU and the CUDA kernel of gather_columns share, and the operator for other kernels.

#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>

namespace recyclelora {

// (rows, width): x with its leading dimensions made one, without a copy where strides allow it.
inline at::Tensor as_matrix(const at::Tensor& x) {
  return x.reshape({c10::size_to_dim_(static_cast<int>(x.dim() - 1), x.sizes()), x.size(-1)});
}

// Checks the arguments; returns the output (..., n) to fill.
inline at::Tensor gathered_like(const at::Tensor& x, const at::Tensor& columns) {
  TORCH_CHECK_VALUE(x.dim() >= 1 && at::isFloatingType(x.scalar_type()),
                    "gather_columns: x must be (..., k) and floating, got shape ", x.sizes(),
                    " and ", x.scalar_type());
  TORCH_CHECK_VALUE(columns.dim() == 1 && columns.scalar_type() == at::kLong,
                    "gather_columns: columns must be (n,) and int64, got shape ", columns.sizes(),
                    " and ", columns.scalar_type());
  TORCH_CHECK_VALUE(x.device() == columns.device(),
                    "gather_columns: x and columns must be on one device, got ", x.device(),
                    " and ", columns.device());
  auto shape = x.sizes().vec();
  shape.back() = columns.numel();
  return at::empty(shape, x.options());
}

// The operator, by whichever kernel serves x's device.
inline at::Tensor gather_columns(const at::Tensor& x, const at::Tensor& columns) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("recyclelora::gather_columns", "")
                             .typed<at::Tensor(const at::Tensor&, const at::Tensor&)>();
  return op.call(x, columns);
}

}  // namespace recyclelora
