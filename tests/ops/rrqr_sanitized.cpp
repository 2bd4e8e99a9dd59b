// The CUDA kernels of rrqr on random matrices, as a separate program for the compiler's sanitizers.
// Arrays have exactly the required length. tests/ops/test_rrqr_on_host.py builds and runs it.

#include "cuda_on_host.h"
// After it.
#include <cstdio>
#include <limits>
#include <random>

#include "../../csrc/cuda/rrqr_kernels.cuh"

using recyclelora::Certificate;
using recyclelora::Panel;
using recyclelora::Proof;

// Return whether all columns of a random full-rank (batch, d, k), times powers of two, are chosen
// in greedy order, and whether both proofs hold.
bool greedy(int64_t batch, int64_t d, int64_t k, int64_t threads) {
  const int64_t m = d < k ? d : k;
  std::mt19937 random(k);
  std::normal_distribution<double> normal;
  std::vector<double> w(batch * d * k), gram(batch * k * k), rows(batch * m * k), norms(batch * k);
  std::vector<int64_t> pivots(batch * m), exponents(batch * k);
  for (double& entry : w) entry = normal(random);
  for (int64_t& exponent : exponents) exponent = static_cast<int64_t>(random() % 5) * 500 - 1000;
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t j = 0; j < k; ++j) {
        double& entry = gram[(b * k + i) * k + j];
        for (int64_t row = 0; row < d; ++row) {
          entry += w[(b * d + row) * k + i] * w[(b * d + row) * k + j];
        }
        if (i == j) norms[b * k + i] = entry;
      }
    }
  }
  const Panel panel = {
      gram.data(), rows.data(), norms.data(), exponents.data(), pivots.data(), k, m, 0, m};
  cuda_on_host::run(batch, threads, [&] { recyclelora::choose_panel(panel); });

  // R in the order of the pivots. Of the other columns of a wide matrix, only one is kept.
  const int64_t kept = m + (m < k);
  std::vector<double> r(batch * m * kept), noise(batch * kept, 1e-10);
  std::vector<double> squares(batch * kept);
  std::vector<int64_t> exponents_p(batch * kept);
  const auto holds = std::make_unique<bool[]>(batch * kept);
  const auto certain = std::make_unique<bool[]>(batch * kept);
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t j = 0; j < kept; ++j) {
      int64_t column = j < m ? pivots[b * m + j] : 0;
      while (j == m && norms[b * k + column] == -1) ++column;
      exponents_p[b * kept + j] = exponents[b * k + column];
      squares[b * kept + j] = gram[(b * k + column) * k + column];
      for (int64_t i = 0; i < m; ++i) r[(b * m + i) * kept + j] = rows[(b * m + i) * k + column];
    }
  }
  const Proof proof = {r.data(), noise.data(), exponents_p.data(), holds.get(), batch, kept, m};
  cuda_on_host::run((batch * kept + 31) / 32, 32, [&] { recyclelora::prove_columns(proof); });
  const std::vector<double> errors(batch * m * kept, 1e-10);
  Certificate certificate;
  certificate.r = r.data();
  certificate.squares = squares.data();
  certificate.noise = errors.data();
  certificate.exponents = exponents_p.data();
  certificate.holds = certain.get();
  certificate.tie = 1e-10;
  certificate.loss = 1e-6;
  certificate.batch = batch;
  certificate.k = kept;
  certificate.m = m;
  cuda_on_host::run((batch * kept + 31) / 32, 32,
                    [&] { recyclelora::certify_columns(certificate); });
  bool all = true;
  for (int64_t i = 0; i < batch * kept; ++i) all = all && holds[i] && certain[i];
  return all;
}

// Return whether a column with NaN is ignored, for each of the k columns: the others must be chosen
// in the order of their norms.
bool passes_over_nan(int64_t k, int64_t threads) {
  const int64_t m = 3;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  std::vector<double> gram(k * k * k), rows(k * m * k), norms(k * k);
  std::vector<int64_t> pivots(k * m), exponents(k * k);
  for (int64_t b = 0; b < k; ++b) {
    for (int64_t i = 0; i < k; ++i) {
      norms[b * k + i] = gram[(b * k + i) * k + i] = i == b ? nan : 1.0 + i;
      gram[(b * k + b) * k + i] = gram[(b * k + i) * k + b] = nan;
    }
  }
  const Panel panel = {
      gram.data(), rows.data(), norms.data(), exponents.data(), pivots.data(), k, m, 0, m};
  cuda_on_host::run(k, threads, [&] { recyclelora::choose_panel(panel); });
  bool all = true;
  for (int64_t b = 0; b < k; ++b) {
    for (int64_t step = 0; step < m; ++step) {
      const int64_t largest = k - 1 - step;
      all = all && pivots[b * m + step] == (largest > b ? largest : largest - 1);
    }
  }
  return all;
}

int main() {
  const bool right = greedy(2, 40, 33, 64) && greedy(1, 20, 50, 64) && greedy(1, 64, 64, 32) &&
                     greedy(2, 1, 1, 32) && greedy(1, 3, 600, 96) && passes_over_nan(64, 64) &&
                     passes_over_nan(40, 32);
  std::puts(right ? "greedy" : "not greedy");
  return right ? 0 : 1;
}
