#include "gram_sum.h"

#include <algorithm>

namespace recyclelora {
namespace {

using Panel = Line<double>;  // line l of a panel: column l of 8 rows

constexpr int64_t kWidth = Panel::kCount;
constexpr int64_t kHeight = 3 * kWidth;     // 3 x 8 sums and their factors fill the 32 registers
constexpr int64_t kTogether = 4 * kHeight;  // rows whose panels stay in the L2 cache
constexpr int64_t kTile = 128;              // narrower products are slower, wider ones waste more

// The panels of whole tiles.
int64_t panels_of(int64_t rows) {
  return (rows + kHeight - 1) / kHeight * (kHeight / kWidth);
}

void add_by_products(View<double> c, double beta, double alpha, View<double> a) {
  for (int64_t first = 0; first < c.cols; first += kTile) {
    const int64_t n = std::min(kTile, c.cols - first), rest = c.rows - first;
    multiply_add(c.block(first, first, rest, n), beta, alpha, a.block(first, 0, rest, a.cols),
                 a.block(first, 0, n, a.cols).t());
  }
}

// BLAS copies its operands for every product, and computes whole squares on the diagonal. Here one
// copy is used for all products, and the tiles are small. This is a third faster on processors with
// AVX-512.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
bool has_tiles() {
  return __builtin_cpu_supports("avx512f");
}

typedef double Vector __attribute__((vector_size(64)));
typedef double Unaligned __attribute__((vector_size(64), aligned(8)));

// c = beta c + alpha x y', where x is three panels and y is one.
__attribute__((target("avx512f"))) void add_tile(View<double> c, double beta, double alpha,
                                                 const Panel* x, const Panel* y, int64_t depth) {
  for (int64_t j = 0; j < kWidth; ++j) {
    for (int64_t i = 0; i < kHeight; i += kWidth) __builtin_prefetch(c.column(j) + i, 1);
  }
  Vector sums[kWidth][3] = {};
  for (int64_t l = 0; l < depth; ++l) {
    const Vector x0 = *reinterpret_cast<const Vector*>(x + l);
    const Vector x1 = *reinterpret_cast<const Vector*>(x + l + depth);
    const Vector x2 = *reinterpret_cast<const Vector*>(x + l + 2 * depth);
#pragma GCC unroll 8
    for (int64_t j = 0; j < kWidth; ++j) {
      const double factor = y[l].values[j];
      sums[j][0] += x0 * factor;
      sums[j][1] += x1 * factor;
      sums[j][2] += x2 * factor;
    }
  }
#pragma GCC unroll 8
  for (int64_t j = 0; j < kWidth; ++j) {
#pragma GCC unroll 3
    for (int64_t i = 0; i < 3; ++i) {
      Unaligned* const out = reinterpret_cast<Unaligned*>(c.column(j) + i * kWidth);
      *out = beta == 0 ? alpha * sums[j][i] : beta * *out + alpha * sums[j][i];
    }
  }
}

// The same for a tile that exceeds the end of c.
void add_cut_tile(View<double> c, double beta, double alpha, const Panel* x, const Panel* y,
                  int64_t depth) {
  double storage[kHeight * kWidth];
  add_tile(column_major(storage, kHeight, kWidth, kHeight), 0, alpha, x, y, depth);
  for (int64_t j = 0; j < c.cols; ++j) {
    for (int64_t i = 0; i < c.rows; ++i) {
      const double sum = storage[j * kHeight + i];
      c(i, j) = beta == 0 ? sum : beta * c(i, j) + sum;
    }
  }
}

// c = beta c + alpha a a', given the panels of a.
void add_by_tiles(View<double> c, double beta, double alpha, const Panel* panels, int64_t depth) {
  for (int64_t top = 0; top < c.rows; top += kTogether) {
    const int64_t bottom = std::min(top + kTogether, c.rows);
    for (int64_t j = 0; j < bottom; j += kWidth) {
      const Panel* const y = panels + j / kWidth * depth;
      const int64_t cols = std::min(kWidth, c.cols - j);
      for (int64_t i = std::max(top, j / kHeight * kHeight); i < bottom; i += kHeight) {
        const Panel* const x = panels + i / kWidth * depth;
        const int64_t rows = std::min(kHeight, c.rows - i);
        const bool whole = rows == kHeight && cols == kWidth;
        (whole ? add_tile : add_cut_tile)(c.block(i, j, rows, cols), beta, alpha, x, y, depth);
      }
    }
  }
}
#else
bool has_tiles() {
  return false;
}

void add_by_tiles(View<double>, double, double, const Panel*, int64_t) {}
#endif

}  // namespace

GramSum::GramSum(int64_t rows, int64_t cols)
    : panels_(large_array<Panel>(panels_of(rows) * cols)) {}

void GramSum::add(View<double> c, double beta, double alpha, View<double> a) {
  if (!has_tiles()) {
    add_by_products(c, beta, alpha, a);
    return;
  }
  Panel* panel = panels_.get();
  for (int64_t i = 0; i < a.rows; i += kWidth) {
    const int64_t n = std::min(kWidth, a.rows - i);
    for (int64_t l = 0; l < a.cols; ++l, ++panel) {
      std::copy_n(a.column(l) + i, n, panel->values);
      std::fill(panel->values + n, panel->values + kWidth, 0.0);
    }
  }
  std::fill(panel, panels_.get() + panels_of(a.rows) * a.cols, Panel{});
  add_by_tiles(c, beta, alpha, panels_.get(), a.cols);
}

void GramSum::add_rows(View<double> c, double beta, const Matrix& matrix, int64_t first,
                       int64_t count) {
  Panel* const panels = panels_.get();
  if (!has_tiles()) {
    matrix.read_rows(first, count, panels->values);
    add_by_products(c, beta, 1, column_major(panels->values, c.cols, count, c.cols));
    return;
  }
  matrix.read_panels(first, count, panels);
  std::fill(panels + lines_of<double>(c.cols) * count, panels + panels_of(c.cols) * count, Panel{});
  add_by_tiles(c, beta, 1, panels, count);
}

}  // namespace recyclelora
