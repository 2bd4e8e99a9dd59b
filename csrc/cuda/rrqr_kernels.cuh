#pragma once

// The kernels without their launches, so that tests can compile them for the host.

#include <cstring>

#include "rrqr_kernels.h"

namespace recyclelora {

// The column with the largest residual norm; among equal norms, the first column. The rank is an
// integer, so that every thread finds the same column, whatever the norms are.
struct Choice {
  int64_t rank;
  int64_t column;
};

__device__ inline Choice no_choice() {
  return {INT64_MIN, INT64_MAX};
}

// The choice of a column with the squared residual norm `norm` times 4^exponent; no choice if
// `norm` is NaN or not positive. The bits of positive floating-point numbers have the same order as
// the numbers. To multiply by a power of two, its exponent is added to their exponent. The last
// three bits are dropped to make room for this, which a guess permits.
__device__ inline Choice choice_of(double norm, int64_t exponent, int64_t column) {
  if (!(norm > 0)) return no_choice();
  int64_t bits;
  memcpy(&bits, &norm, sizeof(bits));
  return {(bits >> 3) + 2 * exponent * (int64_t{1} << 49), column};
}

__device__ inline Choice better(const Choice& a, const Choice& b) {
  return a.rank > b.rank || (a.rank == b.rank && a.column < b.column) ? a : b;
}

// 2^exponent, or the nearest normal number.
__device__ inline double power_of_two(int64_t exponent) {
  const int64_t most = exponent < 1023 ? exponent : 1023;
  const int64_t bits = ((most > -1022 ? most : -1022) + 1023) << 52;
  double power;
  memcpy(&power, &bits, sizeof(power));
  return power;
}

__device__ inline Choice best_of_warp(Choice mine) {
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    Choice other;
    other.rank = __shfl_xor_sync(0xffffffffu, mine.rank, lanes);
    other.column = __shfl_xor_sync(0xffffffffu, mine.column, lanes);
    mine = better(mine, other);
  }
  return mine;
}

// Return the same choice in every thread. `warps` may be written again after the next
// __syncthreads().
__device__ inline Choice best_of_block(const Choice& mine, Choice* warps) {
  const Choice best = best_of_warp(mine);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = best;
  __syncthreads();
  const unsigned lane = threadIdx.x % 32;
  return best_of_warp(lane < blockDim.x / 32 ? warps[lane] : no_choice());
}

// Entry (row, column) of the symmetric Gram matrix, of which each stripe of rows is stored up to
// the diagonal block.
__device__ inline double gram_entry(const double* gram, int64_t k, int64_t row, int64_t column) {
  return column / kStripe <= row / kStripe ? gram[row * k + column] : gram[column * k + row];
}

// Compute row `step` of R for the columns of this thread, and return the best next pivot among
// them.
__device__ inline Choice eliminate(const Panel& panel, int64_t matrix, int64_t step, int64_t pivot,
                                   double pivot_norm, const double* coefficients) {
  const int64_t k = panel.k;
  const double* gram = panel.gram + matrix * k * k;
  double* rows = panel.rows + matrix * panel.m * k;
  double* norms = panel.norms + matrix * k;
  const int64_t* exponents = panel.exponents + matrix * k;
  const double diagonal = sqrt(pivot_norm);
  Choice next = no_choice();
  for (int64_t i = threadIdx.x; i < k; i += blockDim.x) {
    const double norm = norms[i];
    if (i == pivot || norm < 0) {
      rows[step * k + i] = i == pivot ? diagonal : 0;
      norms[i] = -1;
      continue;
    }
    double entry = gram_entry(gram, k, pivot, i);
#pragma unroll 8
    for (int64_t row = panel.begin; row < step; ++row) {
      entry -= rows[row * k + i] * coefficients[row - panel.begin];
    }
    const double r = entry / diagonal;
    rows[step * k + i] = r;
    norms[i] = norm > r * r ? norm - r * r : 0;
    next = better(next, choice_of(norms[i], exponents[i], i));
  }
  return next;
}

// One block per matrix, consisting of whole warps. Each column belongs to one thread, and only this
// thread writes to it.
__global__ void __launch_bounds__(kThreadsAtMost) choose_panel(const Panel panel) {
  __shared__ Choice warps[kThreadsAtMost / 32];
  __shared__ double coefficients[kPanel];  // of the pivot's column, in earlier rows of the panel
  const int64_t matrix = blockIdx.x;
  const int64_t k = panel.k;
  const double* rows = panel.rows + matrix * panel.m * k;
  const double* norms = panel.norms + matrix * k;
  const int64_t* exponents = panel.exponents + matrix * k;

  Choice mine = no_choice();
  for (int64_t i = threadIdx.x; i < k; i += blockDim.x) {
    mine = better(mine, choice_of(norms[i], exponents[i], i));
  }
  for (int64_t step = panel.begin; step < panel.end; ++step) {
    const Choice best = best_of_block(mine, warps);
    if (best.rank == no_choice().rank) return;  // true in all threads of the block or in none
    const int64_t pivot = best.column;
    const double pivot_norm = norms[pivot];  // its thread changes it only after the barrier
    if (threadIdx.x == 0) panel.pivots[matrix * panel.m + step] = pivot;
    for (int64_t row = panel.begin + threadIdx.x; row < step; row += blockDim.x) {
      coefficients[row - panel.begin] = rows[row * k + pivot];
    }
    __syncthreads();
    mine = eliminate(panel, matrix, step, pivot, pivot_norm, coefficients);
  }
}

// One thread per column, which reads R from the last row to the first. R must vanish below the
// diagonal and be positive on it. Before step j, every later column must be shorter than pivot j.
__global__ void prove_columns(const Proof proof) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t k = proof.k;
  if (index >= proof.batch * k) return;
  const int64_t matrix = index / k, i = index % k;
  const double* r = proof.r + matrix * proof.m * k;
  const double* noise = proof.noise + matrix * k;
  const int64_t* exponents = proof.exponents + matrix * k;
  const double own = noise[i];
  bool holds = true;
  double square = 0;
#pragma unroll 8
  for (int64_t j = proof.m - 1; j >= 0; --j) {
    const double entry = r[j * k + i];
    const double pivot = r[j * k + j] - noise[j];
    square += i < j ? 0 : entry * entry;
    // The comparison is false for NaN. The pivot is converted to the scale of this column.
    holds = holds &&
            (i < j    ? fabs(entry) <= own
             : i == j ? pivot > 0
                      : sqrt(square) + own < pivot * power_of_two(exponents[j] - exponents[i]));
  }
  proof.holds[index] = holds;
}

// One thread per column, which reads R from the first row to the last. In every step before its
// own, a column must be shorter than the pivot, whatever the errors are, and also not tie with it.
// In its own step, its error must be small.
__global__ void certify_columns(const Certificate certificate) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t k = certificate.k, m = certificate.m;
  if (index >= certificate.batch * k) return;
  const int64_t matrix = index / k, i = index % k;
  const double* r = certificate.r + matrix * m * k;
  const double* squares = certificate.squares + matrix * k;
  const double* noise = certificate.noise + matrix * m * k;
  const int64_t* exponents = certificate.exponents + matrix * k;
  const double tie = certificate.tie * sqrt(squares[i]);
  bool holds = true;
  double square = squares[i];  // of the residual, before each step
#pragma unroll 8
  for (int64_t j = 0; j < m && j <= i; ++j) {
    const double entry = r[j * k + i], pivot = r[j * k + j];
    // The comparisons are false for NaN, which square roots of negative numbers are. The pivot is
    // converted to the scale of this column.
    const double least =
        sqrt(pivot * pivot - noise[j * k + j]) - certificate.tie * sqrt(squares[j]);
    holds = holds && (i == j ? noise[j * k + i] < certificate.loss * entry * entry
                             : sqrt(square + noise[j * k + i]) + tie <
                                   least * power_of_two(exponents[j] - exponents[i]));
    square -= entry * entry;
  }
  certificate.holds[index] = holds;
}

}  // namespace recyclelora
