// torch.ops.recyclelora.rrqr on CUDA.

#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "../rrqr_check.h"
#include "rrqr_decompose.h"

namespace recyclelora {
namespace {

// All 24 layers of one shape of DINOv2-L at once.
constexpr int64_t kMemory = int64_t{8} << 30;

Decomposition rrqr_cuda(const at::Tensor& weight, int64_t n_major, int64_t n_minor) {
  check_rrqr(weight, n_major, n_minor);
  const c10::DeviceGuard guard(weight.device());
  return decompose(weight, n_major, n_minor, kMemory);
}

}  // namespace
}  // namespace recyclelora

TORCH_LIBRARY_IMPL(recyclelora, CUDA, m) {
  m.impl("rrqr", &recyclelora::rrqr_cuda);
}
