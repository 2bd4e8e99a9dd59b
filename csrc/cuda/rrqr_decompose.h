#pragma once

#include <tuple>

#include <ATen/core/Tensor.h>

namespace recyclelora {

// What `rrqr` returns: perm, q_major, q_minor, r_diag.
using Decomposition = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

// `rrqr` of any number of matrices (..., d, k) by tensor operations and the kernels, on the device
// where those run. The arguments have been checked; the values have not. So many matrices are
// decomposed at once as fit in `memory` (bytes), half as many after an allocation has failed, and
// at least one.
Decomposition decompose(const at::Tensor& weight, int64_t n_major, int64_t n_minor, int64_t memory);

}  // namespace recyclelora
