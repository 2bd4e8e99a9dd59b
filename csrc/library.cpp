// The library `recyclelora`: every operator's schema. Kernels register themselves from the files
// named after them, in cpu/ and cuda/; fake kernels and autograd stand in recyclelora/ops.

#include <torch/library.h>
#include <torch/version.h>

namespace recyclelora {
namespace {

#if defined(__clang__)
#define COMPILER "Clang " __clang_version__
#else
#define COMPILER "GCC " __VERSION__
#endif

#define TEXT_OF(macro) QUOTED(macro)  // twice, so that the macro's value is quoted, not its name
#define QUOTED(value) #value
#define CXX TEXT_OF(__cplusplus)
#define CXX11_ABI TEXT_OF(_GLIBCXX_USE_CXX11_ABI)

// What this library was built with and for. Python and CMake find it in the file by the words that
// it begins with, before they load or link it. setup.py defines the last two macros.
[[gnu::used]] constexpr char kBuildInfo[] =
    "recyclelora was built with compiler=" COMPILER ";cxx=" CXX ";torch=" TORCH_VERSION
    ";cxx11_abi=" CXX11_ABI ";cuda=" RECYCLELORA_CUDA ";architectures=" RECYCLELORA_ARCHITECTURES;

}  // namespace
}  // namespace recyclelora

TORCH_LIBRARY(recyclelora, m) {
  m.def(
      "rrqr(Tensor weight, SymInt n_major, SymInt n_minor)"
      " -> (Tensor perm, Tensor q_major, Tensor q_minor, Tensor r_diag)");
  m.def("gather_columns(Tensor x, Tensor columns) -> Tensor");
  m.def(
      "dual_lora_linear(Tensor x, Tensor weight, Tensor? bias, Tensor A_main, Tensor B_main,"
      " Tensor A_sub, Tensor B_sub, float scaling, Tensor? columns=None)"
      " -> (Tensor out, Tensor kept)");
  m.def(
      "dual_lora_linear_backward(Tensor grad, Tensor? x, Tensor? kept, Tensor weight, Tensor A,"
      " Tensor B, float scaling, Tensor? columns, bool[4] wanted)"
      " -> (Tensor x, Tensor bias, Tensor A, Tensor B)");
}
