// What this library was built with and for, so that a bug report can say it:
//
//   torch.ops.recyclelora.build_info() -> "compiler=GCC 12.2.0;cxx=201703;torch=2.11.0;cuda=none"

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

std::string build_info() {
  return "compiler=" + compiler() + ";cxx=" + std::to_string(__cplusplus) +
         ";torch=" TORCH_VERSION ";cuda=none";
}

}  // namespace
}  // namespace recyclelora

// A fragment: every operator of csrc/ adds its own schema to the one library `recyclelora`.
TORCH_LIBRARY_FRAGMENT(recyclelora, m) {
  m.def("build_info() -> str", &recyclelora::build_info);
}
