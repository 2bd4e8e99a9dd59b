// Memory for a weight that lives for one call only.

#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace recyclelora {

// An uninitialised tensor of these sizes, valid until this thread asks for the same slot again.
//
// On the CPU each thread keeps one buffer a slot, as large as the largest it was asked for: fresh
// pages for a weight of 16 MB cost milliseconds, each time. On CUDA PyTorch's caching allocator
// already keeps such a buffer for each device and stream, and CUDA graphs capture it correctly.
at::Tensor workspace(at::IntArrayRef sizes, const at::TensorOptions& options, int64_t slot);

constexpr int64_t kWorkspaceSlots = 2;

}  // namespace recyclelora
