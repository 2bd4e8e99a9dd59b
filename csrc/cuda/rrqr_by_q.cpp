// All of Q = W P R^-1 is computed and orthonormalised. R = Q'W P must then be triangular, and
// before each step, the residual norm of every column, which R contains, must be smaller than that
// of the pivot by more than the rounding errors.

#include "rrqr_methods.h"

#include <limits>

#include <ATen/TensorOperators.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>

#include "rrqr_guess.h"
#include "rrqr_kernels.h"

namespace recyclelora {
namespace {

using at::Tensor;

// Reduce the error E of Q'Q = I + E without changing the spans of the leading columns. Return 2
// |E|^2 (b), which bounds |Q'Q - I| afterwards. With I + E = (I + U)'(I + U), the exact result is Q
// (I + U)^-1. To first order, U is the upper half of E, and Q (I + U)^-1 is Q (I - U).
Tensor orthonormalise_(const Tensor& q) {
  const Tensor error = at::bmm(q.mT(), q);
  error.diagonal(0, 1, 2).sub_(1);
  const Tensor distance = error.square().sum({1, 2}).mul_(2);
  error.triu_();
  error.diagonal(0, 1, 2).mul_(0.5);
  q.sub_(at::bmm(q, error));
  return distance;
}

// Return for which columns (b, k) the order is provably greedy, given R = Q'WP (b, m, k) and the
// distance of Q'Q from I.
Tensor prove(const Guess& guess, const Tensor& r, const Tensor& w_p, const Tensor& distance) {
  const Tensor error = (distance + tie_noise(guess)).unsqueeze(1);
  const Tensor noise = at::linalg_vector_norm(w_p, 2, {1}) * error;
  const Tensor holds = at::empty(noise.sizes(), noise.options().dtype(at::kBool));
  Proof proof;
  proof.r = r.const_data_ptr<double>();
  proof.noise = noise.const_data_ptr<double>();
  proof.exponents = guess.exponents.const_data_ptr<int64_t>();
  proof.holds = holds.mutable_data_ptr<bool>();
  proof.batch = r.size(0);
  proof.k = r.size(2);
  proof.m = r.size(1);
  prove_order(proof);
  return holds;
}

Tensor decompose_by_q(const Tensor& weight, const Decomposition& out) {
  const auto& [perm, q_major, q_minor, r_diag] = out;
  const int64_t m = r_diag.size(1);
  const bool is_double = weight.scalar_type() == at::kDouble;
  const Guess guess = guess_pivots(weight);
  perm.copy_(guess.perm);
  const Tensor w_p = guess.w.gather(2, perm.unsqueeze(1).expand_as(weight));
  const Tensor q = at::bmm(w_p.narrow(2, 0, m), invert_triangles(guess.r.narrow(2, 0, m)));
  Tensor distance = orthonormalise_(q);
  if (is_double) distance = orthonormalise_(q);
  const Tensor r = at::bmm(q.mT(), w_p);
  q_major.copy_(q.narrow(2, 0, q_major.size(2)));
  q_minor.copy_(q.narrow(2, m - q_minor.size(2), q_minor.size(2)));
  write_diagonal(r.diagonal(0, 1, 2), guess, r_diag);
  const double eps =
      is_double ? std::numeric_limits<double>::epsilon() : std::numeric_limits<float>::epsilon();
  const Tensor orthonormal = (distance <= eps / 8).unsqueeze(1);
  return state_of(prove(guess, r, w_p, distance).logical_and(orthonormal), guess);
}

// W twice, the Gram matrix, R thrice, Q, and the inverse triangle with temporary tensors.
int64_t memory_by_q(int64_t d, int64_t k, int64_t m) {
  return 8 * (2 * d * k + k * k + 3 * m * k + 2 * d * m + 5 * m * m);
}

}  // namespace

const Method kByQ{decompose_by_q, memory_by_q};

}  // namespace recyclelora
