#pragma once

#include <cstdint>

namespace recyclelora {

constexpr int64_t kPanel = 64;    // pivots that one launch chooses, between two updates of the Gram
constexpr int64_t kStripe = 512;  // rows of the symmetric Gram that are updated up to the diagonal
constexpr int kThreadsAtMost = 1024;

// Steps begin..end (at most kPanel) of the pivoted Cholesky factorisation R'R of the Gram matrices
// W'W of a batch. Columns stay where they are: row j of R is by W's own column index.
struct Panel {
  const double*
      gram;       // (batch, k, k) after `begin` steps; see gram_entry for the part that is read
  double* rows;   // (batch, m, k) R: begin..end are written
  double* norms;  // (batch, k) squared residual norms of the columns; -1 once chosen
  const int64_t* exponents;  // (batch, k) W's columns are these times 2^exponent, in -1000 .. 1000
  int64_t* pivots;           // (batch, m) begin..end are written
  int64_t k;
  int64_t m;
  int64_t begin;
  int64_t end;
};

// Both functions below launch on the current stream of the current device.

// Where no positive norm is left (a lower rank, or NaN), pivots and rows stay as they are. A column
// with NaN is never chosen.
void factor_panel(const Panel& panel, int64_t batch);

// Whether R = Q'WP proves that the columns of W P are in the greedy order, column by column.
struct Proof {
  const double* r;           // (batch, m, k)
  const double* noise;       // (batch, k) what the norm of a column, and of its rest, may be off by
  const int64_t* exponents;  // (batch, k) as in Panel
  bool* holds;               // (batch, k) written
  int64_t batch;
  int64_t k;
  int64_t m;
};

void prove_order(const Proof& proof);

}  // namespace recyclelora
