// The library `recyclelora`: every operator's schema. Kernels register themselves from the files
// named after them, in cpu/ and cuda/; fake kernels and autograd stand in recyclelora/ops.

#include <string>

#include <torch/library.h>
#include <torch/version.h>

namespace recyclelora {
namespace {

std::string compiler() {
#if defined(__clang__)
  return "Clang " __clang_version__;
#elif defined(__GNUC__)
  return "GCC " __VERSION__;
#else
  return "unknown";
#endif
}

// What this library was built with and for, so that a bug report can say it.
std::string build_info() {
  return "compiler=" + compiler() + ";cxx=" + std::to_string(__cplusplus) +
         ";torch=" TORCH_VERSION ";cuda=none";
}

}  // namespace
}  // namespace recyclelora

TORCH_LIBRARY(recyclelora, m) {
  m.def("build_info() -> str", &recyclelora::build_info);
  m.def(
      "rrqr(Tensor weight, SymInt n_major, SymInt n_minor)"
      " -> (Tensor perm, Tensor q_major, Tensor q_minor, Tensor r_diag)");
}
