// The CUDA kernels of rrqr for CPU tensors: tests/ops/test_rrqr_on_host.py builds it.

#include "cuda_on_host.h"
// After it.
#include <torch/library.h>
#include "../../csrc/cuda/rrqr_decompose.h"
#include "../../csrc/cuda/rrqr_kernels.cuh"

namespace recyclelora {

// As in rrqr_kernels.cu, with fewer threads: here they cost more.
void factor_panel(const Panel& panel, int64_t batch) {
  cuda_on_host::run(batch, panel.k > 100 ? 32 : 96, [&] { choose_panel(panel); });
}

void prove_order(const Proof& proof) {
  cuda_on_host::run((proof.batch * proof.k + 31) / 32, 32, [&] { prove_columns(proof); });
}

}  // namespace recyclelora

TORCH_LIBRARY(recyclelora_on_host, m) {
  m.def(
      "rrqr(Tensor weight, int n_major, int n_minor, int memory)"
      " -> (Tensor perm, Tensor q_major, Tensor q_minor, Tensor r_diag)",
      &recyclelora::decompose);
}
