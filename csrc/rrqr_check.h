// Validation of the arguments of torch.ops.recyclelora.rrqr, on any device.

#pragma once

#include <string>

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

namespace recyclelora {

// A shape as Python prints it: "(5, 4)", "(4,)".
inline std::string tuple_of(at::IntArrayRef sizes) {
  std::string text = "(";
  for (size_t i = 0; i < sizes.size(); ++i) {
    text += (i > 0 ? ", " : "") + std::to_string(sizes[i]);
  }
  return text + (sizes.size() == 1 ? ",)" : ")");
}

// Advice on how to convert a matrix to a dtype that rrqr supports.
inline const char* conversion_of(at::ScalarType dtype) {
  if (c10::isComplexType(dtype)) return "; pass a real matrix, as in rrqr(weight.real, ...)";
  if (c10::isQIntType(dtype)) {
    return "; dequantize it first, as in rrqr(weight.dequantize(), ...)";
  }
  return "; convert it first, as in rrqr(weight.float(), ...)";
}

inline void check_rrqr(const at::Tensor& weight, int64_t n_major, int64_t n_minor) {
  TORCH_CHECK_VALUE(weight.scalar_type() == at::kFloat || weight.scalar_type() == at::kDouble,
                    "rrqr: weight must be float32 or float64, got torch.",
                    c10::getDtypeNames(weight.scalar_type()).first,
                    conversion_of(weight.scalar_type()));
  TORCH_CHECK_VALUE(weight.dim() >= 2, "rrqr: weight must be (..., d, k), got shape ",
                    tuple_of(weight.sizes()));
  const int64_t limit = std::min(weight.size(-2), weight.size(-1));
  const auto check_count = [&](const char* name, int64_t count) {
    TORCH_CHECK_VALUE(0 <= count && count <= limit, "rrqr: ", name, " must be 0..min(d, k) = 0..",
                      limit, " for a weight of shape ", tuple_of(weight.sizes()), ", got ", count);
  };
  check_count("n_major", n_major);
  check_count("n_minor", n_minor);
}

}  // namespace recyclelora
