// QR with greedy column pivoting for C++: the operator that recyclelora.rrqr calls in Python.
//
//   #include <recyclelora/rrqr.h>
//
//   auto [perm, q_major, q_minor, r_diag] = recyclelora::rrqr(weight, 4, 32);
//
// CMake: find_package(RecycleLoRA) and the target RecycleLoRA::recyclelora. examples/cpp is a
// complete program.

#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace recyclelora {

// The result of rrqr, on the device of weight.
struct RRQR {
  // (..., k), int64. The first min(d, k) entries are the pivots in greedy order, followed by the
  // other columns in ascending order. Among ties, the column with the lowest index is chosen.
  // Residual norms tie if they differ by less than the rounding error of float64. Beyond the
  // numerical rank, the pivots are therefore in ascending order.
  at::Tensor perm;
  // (..., d, n_major), dtype of weight. The first columns of the economy Q. They are orthonormal
  // even if weight is rank-deficient.
  at::Tensor q_major;
  // (..., d, n_minor), dtype of weight. The last columns of the economy Q, in the order of Q.
  at::Tensor q_minor;
  // (..., min(d, k)), dtype of weight. The diagonal of R, which is nonnegative and nonincreasing.
  // The sign fixes the signs of Q.
  at::Tensor r_diag;
};

// Decompose weight[:, perm] = Q R. Step i chooses the column with the largest norm after projection
// onto the orthogonal complement of the columns chosen before.
//
//   weight   (..., d, k), float32 or float64, on the CPU or a GPU: tall, wide, rank-deficient, zero
//            or empty. The decomposition runs in float64. All finite values are allowed: columns
//            are scaled by powers of two, so that squares of huge and tiny values neither overflow
//            nor underflow.
//   n_major  how many columns of Q to return from its start, 0..min(d, k).
//   n_minor  how many from its end, 0..min(d, k); n_major = min(d, k) and n_minor = 0 give all of
//            the economy Q.
//
// Throws c10::Error with a sentence that contains the expected and the given value, if weight has
// fewer than two dimensions, another dtype, NaN or Inf, or if a count is out of range. Throws
// c10::Error also if weight requires a gradient while gradients are recorded, because pivots have
// no derivative.
[[gnu::visibility("default")]] RRQR rrqr(const at::Tensor& weight, int64_t n_major,
                                         int64_t n_minor);

}  // namespace recyclelora
