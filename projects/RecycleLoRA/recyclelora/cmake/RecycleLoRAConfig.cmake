# For find_package(RecycleLoRA): defines the target RecycleLoRA::recyclelora, which includes libtorch.
#
#   find_package(RecycleLoRA REQUIRED)
#   target_link_libraries(program PRIVATE RecycleLoRA::recyclelora)
#
# recyclelora.cmake_path() in Python returns the folder of this file. Pass it as RecycleLoRA_DIR.
#
# libtorch is searched in Torch_DIR and CMAKE_PREFIX_PATH, then in the place for which the library was
# built. find_package(Torch) is not used, because it requires a complete CUDA toolkit even for a
# program that runs on the CPU.

# The folders that may contain libtorch, the most likely first. The last one is the run path of the
# library, which setup.py wrote.
function(_recyclelora_torch_folders result package library)
  file(STRINGS "${library}" run_path REGEX "^.ORIGIN/[^:]*/torch/lib:")
  string(REPLACE "$ORIGIN" "${package}" run_path "${run_path}")
  string(REGEX REPLACE "/lib(:|$)" ";" run_path "${run_path}")
  set(prefixes ${CMAKE_PREFIX_PATH})
  list(TRANSFORM prefixes APPEND "/../..") # for torch.utils.cmake_prefix_path, torch/share/cmake
  set(${result} "${Torch_DIR}/../../.." ${CMAKE_PREFIX_PATH} ${prefixes} ${run_path} PARENT_SCOPE)
endfunction()

# The version as "2.11", from the headers of libtorch.
function(_recyclelora_torch_version result folder)
  file(GLOB headers "${folder}/include/torch/headeronly/version.h"
    "${folder}/include/torch/csrc/api/include/torch/version.h")
  foreach(header IN LISTS headers)
    foreach(part MAJOR MINOR)
      file(STRINGS "${header}" line REGEX "TORCH_VERSION_${part} [0-9]")
      string(REGEX MATCH "[0-9]+" ${part} "${line}")
    endforeach()
    if(NOT "${MINOR}" STREQUAL "")
      set(${result} "${MAJOR}.${MINOR}" PARENT_SCOPE)
    endif()
  endforeach()
endfunction()

# Define the target, or set `problem` to an error message.
function(_recyclelora_import package problem)
  set(library "${package}/_C.abi3.so")
  if(NOT EXISTS "${library}")
    set(${problem} "${library} is absent: `pip install` builds it." PARENT_SCOPE)
    return()
  endif()
  # The build information in the library (csrc/library.cpp).
  file(STRINGS "${library}" built REGEX "recyclelora was built with ")
  string(REGEX REPLACE ".*cxx11_abi=([01]).*" "\\1" abi "${built}")
  string(REGEX REPLACE ".*torch=([0-9]+[.][0-9]+).*" "\\1" version "${built}")

  _recyclelora_torch_folders(folders "${package}" "${library}")
  find_path(RecycleLoRA_TORCH include/ATen/core/Tensor.h PATHS ${folders} NO_DEFAULT_PATH
    DOC "The folder of libtorch, with include and lib in it")
  mark_as_advanced(RecycleLoRA_TORCH)
  set(found "")
  if(RecycleLoRA_TORCH)
    _recyclelora_torch_version(found "${RecycleLoRA_TORCH}")
  endif()
  if(NOT found STREQUAL version)
    set(${problem} "${library} was built for libtorch ${version}, but ${RecycleLoRA_TORCH} holds \
libtorch ${found}: name the folder of the right one with -DRecycleLoRA_TORCH=..." PARENT_SCOPE)
    return()
  endif()

  set(include "${RecycleLoRA_TORCH}/include")
  set(lib "${RecycleLoRA_TORCH}/lib")
  add_library(RecycleLoRA::recyclelora SHARED IMPORTED)
  set_target_properties(RecycleLoRA::recyclelora PROPERTIES
    IMPORTED_LOCATION "${library}"
    INTERFACE_INCLUDE_DIRECTORIES
      "${package}/include;${include};${include}/torch/csrc/api/include"
    INTERFACE_COMPILE_DEFINITIONS "_GLIBCXX_USE_CXX11_ABI=${abi}"
    INTERFACE_COMPILE_FEATURES cxx_std_17
    # libtorch.so contains no symbols and loads the CUDA part, if this torch has one. A linker that
    # drops unused libraries would drop it.
    INTERFACE_LINK_LIBRARIES "${lib}/libtorch_cpu.so;${lib}/libc10.so;\
-Wl,--push-state,--no-as-needed,${lib}/libtorch.so,--pop-state")
endfunction()

if(NOT TARGET RecycleLoRA::recyclelora)
  get_filename_component(_recyclelora_package "${CMAKE_CURRENT_LIST_DIR}" DIRECTORY)
  _recyclelora_import("${_recyclelora_package}" RecycleLoRA_NOT_FOUND_MESSAGE)
  if(RecycleLoRA_NOT_FOUND_MESSAGE)
    set(RecycleLoRA_FOUND FALSE)
  endif()
  unset(_recyclelora_package)
endif()
