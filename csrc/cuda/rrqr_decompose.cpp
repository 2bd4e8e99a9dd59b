// Pivoted QR of many matrices at once. Float32 matrices are first decomposed by their Gram
// matrices alone. Those without a proof, and all float64 matrices, are decomposed with all of Q;
// those that are left, by the CPU kernel of the operator. The host waits once after each of the
// methods, for one number per matrix.

#include "rrqr_decompose.h"

#include <algorithm>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <c10/util/Logging.h>
#include <c10/util/accumulate.h>

#include "rrqr_methods.h"

namespace recyclelora {
namespace {

using at::Tensor;

constexpr int64_t kAtOnce = 65535;  // matrices: the most blocks of a CUDA grid in y and z

int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

Decomposition narrow(const Decomposition& out, int64_t first, int64_t size) {
  const auto& [perm, q_major, q_minor, r_diag] = out;
  return {perm.narrow(0, first, size), q_major.narrow(0, first, size),
          q_minor.narrow(0, first, size), r_diag.narrow(0, first, size)};
}

// Fill `out` by a method, as many matrices at once as fit into `memory`, and return the states on
// the host.
Tensor decompose_in_chunks(const Method& method, const Tensor& weight, const Decomposition& out,
                           int64_t memory) {
  const int64_t count = weight.size(0), d = weight.size(1), k = weight.size(2);
  const int64_t one = method.memory(d, k, std::min(d, k));
  const int64_t at_once = std::clamp<int64_t>(memory / one, 1, kAtOnce);
  int64_t length = divide_up(count, divide_up(count, at_once));
  std::vector<Tensor> states;
  for (int64_t first = 0; first < count;) {
    const int64_t size = std::min(length, count - first);
    try {
      states.push_back(method.decompose(weight.narrow(0, first, size), narrow(out, first, size)));
      first += size;
    } catch (const c10::OutOfMemoryError&) {
      if (size == 1) throw;
      length = divide_up(size, 2);
    }
  }
  return at::cat(states).cpu();
}

// The results of all matrices (count, d, k), of which the pivots are not set.
Decomposition empty_results(const Tensor& weight, int64_t n_major, int64_t n_minor) {
  const int64_t count = weight.size(0), d = weight.size(1), k = weight.size(2);
  return {at::arange(k, weight.options().dtype(at::kLong)).repeat({count, 1}),
          at::empty({count, d, n_major}, weight.options()),
          at::empty({count, d, n_minor}, weight.options()),
          at::empty({count, std::min(d, k)}, weight.options())};
}

// Decompose on the CPU what is left of `total` matrices.
Decomposition decompose_on_cpu(const Tensor& weight, int64_t n_major, int64_t n_minor,
                               int64_t total) {
  LOG(INFO) << "rrqr: " << weight.size(0) << " of " << total << " matrices of shape ("
            << weight.size(1) << ", " << weight.size(2)
            << ") were decomposed on the CPU, since the GPU could not prove their pivots";
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("recyclelora::rrqr", "")
                             .typed<Decomposition(const Tensor&, c10::SymInt, c10::SymInt)>();
  const auto [perm, q_major, q_minor, r_diag] = op.call(weight.cpu(), n_major, n_minor);
  const auto device = weight.device();
  return {perm.to(device), q_major.to(device), q_minor.to(device), r_diag.to(device)};
}

// Decompose what is left of `total` matrices, at least one, by a method; those that it does not
// prove, by the next.
Decomposition decompose_by(const Method& method, const Tensor& weight, int64_t n_major,
                           int64_t n_minor, int64_t memory, int64_t total) {
  const Decomposition out = empty_results(weight, n_major, n_minor);
  const Tensor states = decompose_in_chunks(method, weight, out, memory);
  TORCH_CHECK_VALUE(!(states == kNotFinite).any().item<bool>(),
                    "rrqr: weight holds NaN or Inf; expected finite values only");
  const Tensor doubtful = (states == kDoubtful).nonzero().squeeze(1);
  if (doubtful.numel() == 0) return out;
  const Tensor index = doubtful.to(weight.device()), rest = weight.index_select(0, index);
  const auto& [perm, q_major, q_minor, r_diag] = out;
  const auto [next_perm, next_q_major, next_q_minor, next_r_diag] =
      &method == &kByGram ? decompose_by(kByQ, rest, n_major, n_minor, memory, total)
                          : decompose_on_cpu(rest, n_major, n_minor, total);
  perm.index_copy_(0, index, next_perm);
  q_major.index_copy_(0, index, next_q_major);
  q_minor.index_copy_(0, index, next_q_minor);
  r_diag.index_copy_(0, index, next_r_diag);
  return out;
}

}  // namespace

Decomposition decompose(const Tensor& input, int64_t n_major, int64_t n_minor, int64_t memory) {
  const int64_t d = input.size(-2), k = input.size(-1);
  const at::IntArrayRef batch = input.sizes().slice(0, input.dim() - 2);
  const Tensor weight = input.detach().reshape({c10::multiply_integers(batch), d, k});
  // As on the CPU: with more columns of Q, computing all of them is not slower.
  const bool few = weight.scalar_type() == at::kFloat && 4 * (n_major + n_minor) <= k;
  const auto [perm, q_major, q_minor, r_diag] =
      weight.numel() == 0
          ? empty_results(weight, n_major, n_minor)
          : decompose_by(few ? kByGram : kByQ, weight, n_major, n_minor, memory, weight.size(0));
  const auto shaped = [&](const Tensor& x) {
    std::vector<int64_t> sizes = batch.vec();
    sizes.insert(sizes.end(), x.sizes().begin() + 1, x.sizes().end());
    return x.view(sizes);
  };
  return {shaped(perm), shaped(q_major), shaped(q_minor), shaped(r_diag)};
}

}  // namespace recyclelora
