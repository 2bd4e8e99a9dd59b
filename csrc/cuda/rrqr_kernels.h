#pragma once

#include <cstdint>

namespace recyclelora {

constexpr int64_t kPanel = 64;    // pivots of one launch, between two updates of the Gram matrix
constexpr int64_t kStripe = 512;  // rows of the Gram matrix that are updated up to the diagonal
constexpr int kThreadsAtMost = 1024;

// Steps begin..end (at most kPanel) of the pivoted Cholesky factorisation R'R of the Gram matrices
// W'W of a batch. Columns are not exchanged: row j of R has the column order of W.
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

// The functions below launch on the current stream of the current device.

// If no positive norm is left (a lower rank, or NaN), pivots and rows are unchanged. A column with
// NaN is never chosen.
void factor_panel(const Panel& panel, int64_t batch);

// Whether R = Q'WP proves that the columns of W P are in the greedy order, for each column.
struct Proof {
  const double* r;           // (batch, m, k)
  const double* noise;       // (batch, k) the largest error of a column's norm or residual norm
  const int64_t* exponents;  // (batch, k) as in Panel
  bool* holds;               // (batch, k) written
  int64_t batch;
  int64_t k;
  int64_t m;
};

void prove_order(const Proof& proof);

// Whether R = chol(P'W'W P) certifies that the columns of W P are in the greedy order, for each
// column.
struct Certificate {
  const double* r;           // (batch, m, k)
  const double* squares;     // (batch, k) squared norms of the columns
  const double* noise;       // (batch, m, k) the largest error of a squared residual norm
  const int64_t* exponents;  // (batch, k) as in Panel
  bool* holds;               // (batch, k) written
  double tie;                // the noise of a norm in the rule for ties, relative to the norm
  double loss;               // the largest accepted error of a squared pivot, relative to it
  int64_t batch;
  int64_t k;
  int64_t m;
};

void certify_order(const Certificate& certificate);

}  // namespace recyclelora
