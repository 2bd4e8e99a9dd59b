// The launches of the kernels. This file includes nothing of ATen, because nvcc would need most of
// its time for that.

#include <algorithm>

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include "rrqr_kernels.cuh"

namespace recyclelora {
namespace {

template <typename Kernel, typename Arguments>
void launch(Kernel kernel, int64_t blocks, int64_t threads, const Arguments& arguments) {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  kernel<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), 0, stream>>>(arguments);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// One thread per column.
template <typename Kernel, typename Arguments>
void launch_columns(Kernel kernel, const Arguments& arguments) {
  const int64_t threads = 128;
  launch(kernel, (arguments.batch * arguments.k + threads - 1) / threads, threads, arguments);
}

}  // namespace

void factor_panel(const Panel& panel, int64_t batch) {
  const int64_t warps = std::min<int64_t>((panel.k + 31) / 32, kThreadsAtMost / 32);
  launch(choose_panel, batch, 32 * warps, panel);
}

void prove_order(const Proof& proof) {
  launch_columns(prove_columns, proof);
}

void certify_order(const Certificate& certificate) {
  launch_columns(certify_columns, certificate);
}

}  // namespace recyclelora
