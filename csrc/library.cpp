// Defines the operators of torch.ops.recyclelora. Each kernel registers itself in the file that has
// the name of the operator. The Python package recyclelora.ops registers the fake kernels, and the
// error of rrqr's derivative.

#include <vector>

#include <torch/library.h>
#include <torch/version.h>

namespace recyclelora {
namespace {

#if defined(__clang__)
#define COMPILER "Clang " __clang_version__
#else
#define COMPILER "GCC " __VERSION__
#endif

#define TEXT_OF(macro) QUOTED(macro)  // two macros, so that the value is quoted and not the name
#define QUOTED(value) #value
#define CXX TEXT_OF(__cplusplus)
#define CXX11_ABI TEXT_OF(_GLIBCXX_USE_CXX11_ABI)

// The versions with which this library was built. Python and CMake search the file for the first
// words of this string before they load or link the library. setup.py defines the last two macros.
[[gnu::used]] constexpr char kBuildInfo[] =
    "recyclelora was built with compiler=" COMPILER ";cxx=" CXX ";torch=" TORCH_VERSION
    ";cxx11_abi=" CXX11_ABI ";cuda=" RECYCLELORA_CUDA ";architectures=" RECYCLELORA_ARCHITECTURES;

// torch.compile leaves an operator with this tag out of its CUDA graphs. Older versions of PyTorch
// do not have this tag.
const std::vector<at::Tag> kCapturable;
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 9
const std::vector<at::Tag> kNotCapturable = {at::Tag::cudagraph_unsafe};
#else
const std::vector<at::Tag> kNotCapturable;
#endif

}  // namespace
}  // namespace recyclelora

TORCH_LIBRARY(recyclelora, m) {
#define SCHEMA(text, capturable) \
  m.def(text, capturable ? recyclelora::kCapturable : recyclelora::kNotCapturable);
#include <recyclelora/schemas.def>
#undef SCHEMA
}
