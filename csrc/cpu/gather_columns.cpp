// x[..., columns] on the CPU: a few columns of many rows, read once.

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include "../gather_columns.h"

namespace recyclelora {
namespace {

constexpr int64_t kElementsATask = 1 << 14;  // fewer are not worth waking a thread for

at::Tensor gather_columns_cpu(const at::Tensor& x, const at::Tensor& columns) {
  const at::Tensor out = gathered_like(x, columns), rows = as_matrix(x);
  const at::Tensor index = columns.contiguous();
  const int64_t* const column = index.const_data_ptr<int64_t>();
  const int64_t count = index.numel(), width = x.size(-1);
  for (int64_t j = 0; j < count; ++j) {
    TORCH_CHECK_INDEX(0 <= column[j] && column[j] < width, "gather_columns: columns must be 0..",
                      width - 1, ", the columns of x, got ", column[j]);
  }
  const int64_t row_stride = rows.stride(0), column_stride = rows.stride(1);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "gather_columns", [&] {
    const scalar_t* const source = rows.const_data_ptr<scalar_t>();
    scalar_t* const target = out.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, rows.size(0), kElementsATask / (count + 1) + 1,
                     [&](int64_t begin, int64_t end) {
                       for (int64_t i = begin; i < end; ++i) {
                         const scalar_t* const row = source + i * row_stride;
                         for (int64_t j = 0; j < count; ++j) {
                           target[i * count + j] = row[column[j] * column_stride];
                         }
                       }
                     });
  });
  return out;
}

}  // namespace
}  // namespace recyclelora

TORCH_LIBRARY_IMPL(recyclelora, CPU, m) {
  m.impl("gather_columns", &recyclelora::gather_columns_cpu);
}
