// x[..., columns] on CUDA: one thread an output element, so writes are coalesced; what is read of
// x is one sector an element, whatever the order.

#include <algorithm>

#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "../gather_columns.h"

namespace recyclelora {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 1 << 16;  // the loop over the grid does the rest

template <typename T>
__global__ void gather_kernel(const T* __restrict__ source, const int64_t* __restrict__ columns,
                              T* __restrict__ target, int64_t elements, int64_t count,
                              int64_t width, int64_t row_stride, int64_t column_stride) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; i < elements; i += step) {
    const int64_t column = columns[i % count];
    CUDA_KERNEL_ASSERT(0 <= column && column < width && "gather_columns: columns out of range");
    target[i] = source[i / count * row_stride + column * column_stride];
  }
}

at::Tensor gather_columns_cuda(const at::Tensor& x, const at::Tensor& columns) {
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor out = gathered_like(x, columns), rows = as_matrix(x);
  const int64_t elements = out.numel();
  if (elements == 0) return out;
  const at::Tensor index = columns.contiguous();
  const int64_t blocks = std::min((elements + kThreads - 1) / kThreads, kMaxBlocks);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "gather_columns", [&] {
    gather_kernel<scalar_t><<<blocks, kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
        rows.const_data_ptr<scalar_t>(), index.const_data_ptr<int64_t>(),
        out.mutable_data_ptr<scalar_t>(), elements, index.numel(), rows.size(1), rows.stride(0),
        rows.stride(1));
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

}  // namespace
}  // namespace recyclelora

TORCH_LIBRARY_IMPL(recyclelora, CUDA, m) {
  m.impl("gather_columns", &recyclelora::gather_columns_cuda);
}
