// The CUDA kernels of rrqr for CPU tensors. tests/ops/test_rrqr_on_host.py builds this file.

#include "cuda_on_host.h"
// After it.
#include <ATen/ops/empty.h>
#include <c10/core/CPUAllocator.h>
#include <torch/library.h>
#include "../../csrc/cuda/rrqr_decompose.h"
#include "../../csrc/cuda/rrqr_kernels.cuh"
#include "../../csrc/cuda/rrqr_methods.h"

namespace recyclelora {

// As in rrqr_kernels.cu, but with fewer threads, which are slower here.
void factor_panel(const Panel& panel, int64_t batch) {
  cuda_on_host::run(batch, panel.k > 100 ? 32 : 96, [&] { choose_panel(panel); });
}

void prove_order(const Proof& proof) {
  cuda_on_host::run((proof.batch * proof.k + 31) / 32, 32, [&] { prove_columns(proof); });
}

void certify_order(const Certificate& certificate) {
  const int64_t blocks = (certificate.batch * certificate.k + 31) / 32;
  cuda_on_host::run(blocks, 32, [&] { certify_columns(certificate); });
}

}  // namespace recyclelora

namespace {

using at::Tensor;

// The results of one method for matrices (b, d, k), and their states.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> by_gram(const Tensor& weight, int64_t n_major,
                                                           int64_t n_minor) {
  const int64_t b = weight.size(0), d = weight.size(1), k = weight.size(2);
  const recyclelora::Decomposition out{at::empty({b, k}, weight.options().dtype(at::kLong)),
                                       at::empty({b, d, n_major}, weight.options()),
                                       at::empty({b, d, n_minor}, weight.options()),
                                       at::empty({b, std::min(d, k)}, weight.options())};
  const Tensor states = recyclelora::kByGram.decompose(weight, out);
  const auto& [perm, q_major, q_minor, r_diag] = out;
  return {perm, q_major, q_minor, r_diag, states};
}

// The CPU's allocator, which fails for tensors of more than `most` bytes, as that of CUDA does.
class LimitedAllocator final : public at::Allocator {
 public:
  at::DataPtr allocate(size_t bytes) override {
    TORCH_CHECK_WITH(OutOfMemoryError, static_cast<int64_t>(bytes) <= most, "out of memory");
    return inner_->allocate(bytes);
  }
  at::DeleterFnPtr raw_deleter() const override { return inner_->raw_deleter(); }
  void copy_data(void* out, const void* in, size_t bytes) const override {
    inner_->copy_data(out, in, bytes);
  }
  int64_t most = 0;

 private:
  at::Allocator* const inner_ = at::GetCPUAllocator();
};

void limit_memory(int64_t most) {
  static LimitedAllocator* const limited = [] {
    auto* const allocator = new LimitedAllocator;
    c10::SetCPUAllocator(allocator, /*priority=*/1);
    return allocator;
  }();
  limited->most = most;
}

}  // namespace

TORCH_LIBRARY(recyclelora_on_host, m) {
  m.def(
      "rrqr(Tensor weight, int n_major, int n_minor, int memory)"
      " -> (Tensor perm, Tensor q_major, Tensor q_minor, Tensor r_diag)",
      &recyclelora::decompose);
  m.def(
      "by_gram(Tensor weight, int n_major, int n_minor)"
      " -> (Tensor perm, Tensor q_major, Tensor q_minor, Tensor r_diag, Tensor states)",
      &by_gram);
  m.def("limit_memory(int most) -> ()", &limit_memory);
}
