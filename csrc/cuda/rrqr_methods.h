// The two methods of decomposing matrices (b, d, k) on a GPU. Both guess all pivots at once
// (rrqr_guess.h) and then prove them.

#pragma once

#include "rrqr_decompose.h"

namespace recyclelora {

enum State : int64_t { kProven, kDoubtful, kNotFinite };

struct Method {
  // Fill `out` for the matrices, and return their State (b), which is on the device.
  at::Tensor (*decompose)(const at::Tensor& weight, const Decomposition& out);
  // The bytes that one matrix (d, k) needs, with m = min(d, k).
  int64_t (*memory)(int64_t d, int64_t k, int64_t m);
};

// The proof bounds the rounding errors of the Gram matrix. It needs only the wanted columns of Q.
// For float32 matrices whose residual norms are not too small.
extern const Method kByGram;

// The proof is R = Q'W P, from all columns of Q. No squares are computed, so smaller residual norms
// and float64 matrices are possible.
extern const Method kByQ;

}  // namespace recyclelora
