// Read a matrix from a text file, decompose it with recyclelora::rrqr and check the result:
//
//   rrqr_of_a_file matrix.txt
//
// The file contains one row per line, with spaces or commas between numbers, as numpy.savetxt
// writes it.

#include <recyclelora/rrqr.h>

#include <algorithm>
#include <exception>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include <ATen/ATen.h>

namespace {

std::vector<double> read_row(std::string line, int64_t number) {
  std::replace(line.begin(), line.end(), ',', ' ');
  std::istringstream words(line);
  std::vector<double> row;
  for (std::string word; words >> word;) {
    size_t used = 0;
    try {
      row.push_back(std::stod(word, &used));
    } catch (const std::exception&) {
      used = 0;
    }
    TORCH_CHECK_VALUE(used == word.size(), "line ", number, ": expected a number, got ", word);
  }
  return row;
}

at::Tensor read_matrix(const std::string& path) {
  std::ifstream file(path);
  TORCH_CHECK_VALUE(file, "cannot open ", path);
  std::vector<double> values;
  int64_t rows = 0, cols = 0, number = 0;
  for (std::string line; std::getline(file, line);) {
    const std::vector<double> row = read_row(line, ++number);
    if (row.empty()) continue;
    if (rows == 0) cols = row.size();
    TORCH_CHECK_VALUE(static_cast<int64_t>(row.size()) == cols, "line ", number, ": expected ",
                      cols, " numbers as in the first row, got ", row.size());
    values.insert(values.end(), row.begin(), row.end());
    ++rows;
  }
  TORCH_CHECK_VALUE(rows > 0, "expected a matrix in ", path, ", but it is empty");
  return at::tensor(values, at::kDouble).reshape({rows, cols});
}

double largest(const at::Tensor& difference) {
  return difference.abs().max().item<double>();
}

// Print the decomposition, and return whether W P = Q R and Q'Q = I up to rounding.
bool decompose(const at::Tensor& weight) {
  const int64_t m = std::min(weight.size(0), weight.size(1));
  const auto [perm, q, q_minor, r_diag] = recyclelora::rrqr(weight, /*n_major=*/m, /*n_minor=*/0);

  const at::Tensor permuted = weight.index_select(1, perm);
  const at::Tensor r = q.t().mm(permuted).triu();
  const double scale = std::max(largest(weight), 1e-300);
  const double reconstruction = largest(q.mm(r) - permuted) / scale;
  const double orthogonality = largest(q.t().mm(q) - at::eye(m, q.options()));

  std::cout << "pivots";
  for (int64_t i = 0; i < m; ++i) std::cout << ' ' << perm[i].item<int64_t>();
  std::cout << "\ndiagonal of R";
  for (int64_t i = 0; i < m; ++i) std::cout << ' ' << r_diag[i].item<double>();
  std::cout << "\n|W P - Q R| / |W| " << reconstruction << "\n|Q'Q - I| " << orthogonality << '\n';
  return reconstruction < 1e-12 * m && orthogonality < 1e-12 * m && r_diag.ge(0).all().item<bool>();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: rrqr_of_a_file matrix.txt\n";
    return 2;
  }
  try {
    if (decompose(read_matrix(argv[1]))) return 0;
    std::cerr << "error: W P = Q R or Q'Q = I does not hold\n";
  } catch (const c10::Error& error) {
    std::cerr << "error: " << error.what_without_backtrace() << '\n';
  }
  return 1;
}
