// Segments a picture with a package that recyclelora.export.program.save_package compiled:
//
//   segment segmentor.pt2 picture.ppm classes.pgm
//
// The picture is a binary PPM (P6) with 8 bits per value, RGB. The class map is a binary PGM (P5)
// of the same size; its values are indices of the classes.

#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <limits>
#include <string>

#include <ATen/ATen.h>

namespace {

// The smallest and the largest side of an image of the exported program.
constexpr int64_t kLeast = 33, kMost = 8192;

// Returns the next number of a header, whose comments begin with # and end with the line; -1 if
// there is none.
int64_t read_number(std::istream& file) {
  while ((file >> std::ws).peek() == '#') {
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  int64_t number = -1;
  return file >> number ? number : -1;
}

// Returns the picture as (1, 3, H, W) float32, RGB 0..255.
at::Tensor read_picture(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  TORCH_CHECK_VALUE(file, "cannot open ", path);
  std::string magic(2, ' ');
  file.read(magic.data(), 2);
  const int64_t width = read_number(file), height = read_number(file), most = read_number(file);
  TORCH_CHECK_VALUE(file && magic == "P6" && most == 255, path,
                    ": expected a binary PPM (P6) with values up to 255: convert the picture");
  TORCH_CHECK_VALUE(std::min(width, height) >= kLeast && std::max(width, height) <= kMost, path,
                    ": expected sides of ", kLeast, " to ", kMost, " pixels, got ", width, "x",
                    height, ": resize the picture");
  file.get();  // one blank ends the header
  at::Tensor pixels = at::empty({height, width, 3}, at::kByte);
  file.read(static_cast<char*>(pixels.data_ptr()), pixels.numel());
  TORCH_CHECK_VALUE(file.gcount() == pixels.numel(), path, ": expected ", pixels.numel(),
                    " bytes of pixels, got ", file.gcount(), ": the picture is cut off");
  return pixels.permute({2, 0, 1}).unsqueeze(0).to(at::kFloat).contiguous();
}

// Writes classes (H, W). The file appears under its name when it is complete.
void write_classes(const std::string& path, const at::Tensor& classes) {
  const at::Tensor bytes = classes.to(at::kCPU, at::kByte).contiguous();
  const std::string temporary = path + ".part";
  std::ofstream file(temporary, std::ios::binary);
  file << "P5\n" << bytes.size(1) << ' ' << bytes.size(0) << "\n255\n";
  file.write(static_cast<const char*>(bytes.data_ptr()), bytes.numel());
  file.close();
  if (!file || std::rename(temporary.c_str(), path.c_str()) != 0) {
    std::remove(temporary.c_str());
    TORCH_CHECK_VALUE(false, "cannot write ", path);
  }
}

void segment(const std::string& package, const std::string& picture, const std::string& output) {
  const at::Tensor images = read_picture(picture);
  TORCH_CHECK_VALUE(std::ifstream(package), "cannot open ", package);
  torch::inductor::AOTIModelPackageLoader loader(package);
  // The program returns the scores (1, C, H, W) and the classes (1, H, W).
  write_classes(output, loader.run({images}).at(1)[0]);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: segment segmentor.pt2 picture.ppm classes.pgm\n";
    return 2;
  }
  try {
    const c10::InferenceMode guard;
    segment(argv[1], argv[2], argv[3]);
    return 0;
  } catch (const c10::Error& error) {
    std::cerr << "error: " << error.what_without_backtrace() << '\n';
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
  }
  return 1;
}
