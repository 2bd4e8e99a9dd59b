#include "workspace.h"

#include <array>

#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/accumulate.h>

namespace recyclelora {

at::Tensor workspace(at::IntArrayRef sizes, const at::TensorOptions& options, int64_t slot) {
  const int64_t bytes = c10::multiply_integers(sizes) * options.dtype().itemsize();
  constexpr int64_t kSmall = 16384;  // below this size, an allocation is faster than three views
  if (!options.device().is_cpu() || bytes <= kSmall) return at::empty(sizes, options);
  thread_local std::array<at::Tensor, kWorkspaceSlots> buffers;
  at::Tensor& buffer = buffers.at(slot);
  const c10::InferenceMode normal_tensor(false);  // the buffer stays in use after an inference mode
  if (!buffer.defined() || buffer.numel() < bytes) {
    buffer.reset();  // free the old buffer before the new one is allocated
    buffer = at::empty({bytes}, options.dtype(at::kByte));
  }
  const auto dtype = c10::typeMetaToScalarType(options.dtype());
  return buffer.narrow(0, 0, bytes).view(dtype).view(sizes);
}

}  // namespace recyclelora
