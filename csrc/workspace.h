// Memory for a weight that is needed during one call only.

#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace recyclelora {

// An uninitialised tensor of these sizes, valid until this thread requests the same slot again.
//
// On the CPU each thread keeps one buffer per slot, of the largest size that it has requested,
// because new pages for a weight of 16 MB take milliseconds in each call. On CUDA, PyTorch's
// caching allocator already keeps such a buffer for each device and stream, and CUDA graphs capture
// it correctly.
at::Tensor workspace(at::IntArrayRef sizes, const at::TensorOptions& options, int64_t slot);

constexpr int64_t kWorkspaceSlots = 2;

}  // namespace recyclelora
