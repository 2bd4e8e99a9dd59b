// torch.ops.recyclelora.rrqr on CUDA.

#include <algorithm>

#include <c10/core/DeviceGuard.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <torch/library.h>

#include "../rrqr_check.h"
#include "rrqr_decompose.h"

namespace recyclelora {
namespace {

// Enough memory for all 24 layers of one shape of DINOv2-L.
constexpr int64_t kMemory = int64_t{8} << 30;

// Return kMemory, or half of the free memory of the current device if this is less. The free memory
// includes that in PyTorch's cache.
int64_t memory_to_use() {
  size_t free = 0, total = 0;
  C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(c10::cuda::current_device());
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const int64_t cached = stats.reserved_bytes[kAll].current - stats.allocated_bytes[kAll].current;
  return std::min(kMemory, (static_cast<int64_t>(free) + cached) / 2);
}

Decomposition rrqr_cuda(const at::Tensor& weight, int64_t n_major, int64_t n_minor) {
  check_rrqr(weight, n_major, n_minor);
  const c10::DeviceGuard guard(weight.device());
  return decompose(weight, n_major, n_minor, memory_to_use());
}

}  // namespace
}  // namespace recyclelora

TORCH_LIBRARY_IMPL(recyclelora, CUDA, m) {
  m.impl("rrqr", &recyclelora::rrqr_cuda);
}
