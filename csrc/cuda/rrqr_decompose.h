#pragma once

#include <tuple>

#include <ATen/core/Tensor.h>

namespace recyclelora {

// The result of `rrqr`: perm, q_major, q_minor, r_diag.
using Decomposition = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

// Compute `rrqr` of any number of matrices (..., d, k) by tensor operations and kernels, on the
// device of the weight. The arguments must have been checked; the values are checked here. As many
// matrices as fit into `memory` (bytes) are decomposed at once, at least one, and half as many
// after each allocation that fails.
Decomposition decompose(const at::Tensor& weight, int64_t n_major, int64_t n_minor, int64_t memory);

}  // namespace recyclelora
