// QR with greedy column pivoting, for C++: the operator behind recyclelora.rrqr in Python.
//
//   #include <recyclelora/rrqr.h>
//
//   auto [perm, q_major, q_minor, r_diag] = recyclelora::rrqr(weight, 4, 32);
//
// CMake: find_package(RecycleLoRA) and the target RecycleLoRA::recyclelora; examples/cpp shows
// both.

#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace recyclelora {

// What rrqr returns, on weight's device.
struct RRQR {
  // (..., k), int64: the first min(d, k) entries are the pivots in greedy order, the rest the other
  // columns in ascending order. Where columns tie, the lowest index comes first; residual norms
  // that differ by less than float64 can resolve are a tie, so beyond the numerical rank the pivots
  // ascend.
  at::Tensor perm;
  // (..., d, n_major), weight's dtype: the first columns of the economy Q, orthonormal also where
  // weight is rank-deficient.
  at::Tensor q_major;
  // (..., d, n_minor), weight's dtype: the last columns of the economy Q, in Q's order.
  at::Tensor q_minor;
  // (..., min(d, k)), weight's dtype: the diagonal of R, never negative, which fixes the signs of
  // Q, and never ascending.
  at::Tensor r_diag;
};

// Decomposes weight[:, perm] = Q R. Step i takes the column that has the largest norm after
// projection onto the orthogonal complement of the columns taken before.
//
//   weight   (..., d, k), float32 or float64, on the CPU or a GPU: tall, wide, rank-deficient, zero
//            or empty. The decomposition runs in float64. All finite values are allowed: columns
//            are scaled by powers of two, so that squares of huge and tiny values neither overflow
//            nor underflow.
//   n_major  how many columns of Q to return from its start, 0..min(d, k).
//   n_minor  how many from its end, 0..min(d, k); n_major = min(d, k) and n_minor = 0 give all of
//            the economy Q.
//
// Throws c10::Error, with a sentence that says what was expected and what came: for a weight of
// fewer than two dimensions, of another dtype, or with NaN or Inf in it, for a count out of range,
// and for a weight that requires grad while gradients are recorded, since pivots have no
// derivative.
[[gnu::visibility("default")]] RRQR rrqr(const at::Tensor& weight, int64_t n_major,
                                         int64_t n_minor);

}  // namespace recyclelora
