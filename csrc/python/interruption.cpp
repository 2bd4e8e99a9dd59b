// recyclelora._interruption: Python's signals and progress for csrc/interruption.h.
//
// This module is built for one version of Python. The operators do not need it.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include <dlfcn.h>
#include <pybind11/pybind11.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace py = pybind11;

namespace {

using Flag = std::atomic<bool>;

// Python objects are pointers, because a thread may end without Python's lock.
struct Thread {
  std::shared_ptr<Flag> stop;
  PyObject* progress = nullptr;
  PyObject* error = nullptr;  // what a signal handler or `progress` raised
};
thread_local Thread thread;

// Moves the current error of Python to `thread`.
void keep_error() {
  const py::error_already_set error;
  Py_XDECREF(thread.error);
  thread.error = error.value().inc_ref().ptr();
}

// Raises the error that is kept, if any, in the main thread. Code that calls the operator without
// recyclelora.rrqr, such as a compiled graph, would otherwise get only the error of the operator.
int raise_kept_error(void*) {
  if (!thread.error) return 0;
  const auto error = py::reinterpret_steal<py::object>(thread.error);
  thread.error = nullptr;
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
  return -1;
}

// Only the main thread runs signal handlers. The others need not wait for Python's lock. After a
// fork, too, the main thread is the one whose number is that of the process.
bool in_main_thread() {
  return syscall(SYS_gettid) == getpid();
}

int interrupted() {
  if (thread.stop && *thread.stop) return 1;
  if (!in_main_thread() || !Py_IsInitialized()) return 0;
  const py::gil_scoped_acquire lock;
  if (PyErr_CheckSignals() == 0) return 0;
  keep_error();
  Py_AddPendingCall(&raise_kept_error, nullptr);
  return 1;
}

int progress(int64_t finished, int64_t total) {
  if (!thread.progress) return 0;
  const py::gil_scoped_acquire lock;
  PyObject* const function = thread.progress;
  thread.progress = nullptr;  // calls of rrqr inside the function are not reported
  PyObject* const value = PyObject_CallFunction(function, "LL", static_cast<long long>(finished),
                                                static_cast<long long>(total));
  thread.progress = function;
  if (!value) keep_error();
  Py_XDECREF(value);
  return value == nullptr;
}

// Whether the library, which is loaded already, calls these functions from now on.
bool connect(const std::string& library) {
  void* const handle = dlopen(library.c_str(), RTLD_NOW | RTLD_NOLOAD);
  if (!handle) return false;
  using SetHooks = void (*)(int (*)(), int (*)(int64_t, int64_t));
  const auto set_hooks = reinterpret_cast<SetHooks>(dlsym(handle, "recyclelora_set_hooks"));
  if (set_hooks) set_hooks(&interrupted, &progress);
  dlclose(handle);  // undoes dlopen; the library stays loaded
  return set_hooks != nullptr;
}

py::object take_error() {
  if (!thread.error) return py::none();
  const auto error = py::reinterpret_steal<py::object>(thread.error);
  thread.error = nullptr;
  return error;
}

// Returns the previous function.
py::object set_progress(const py::object& function) {
  const auto before = py::reinterpret_steal<py::object>(thread.progress);
  thread.progress = function.is_none() ? nullptr : function.inc_ref().ptr();
  return before ? before : py::none();
}

}  // namespace

PYBIND11_MODULE(_interruption, m) {
  m.doc() = "Signals and progress of long decompositions; see recyclelora.ops.interruption.";
  py::class_<Flag, std::shared_ptr<Flag>>(m, "Flag")
      .def(py::init([] { return std::make_shared<Flag>(false); }))
      .def("set", [](Flag& flag) { flag = true; })
      .def("use", [](const std::shared_ptr<Flag>& flag) { thread.stop = flag; });
  m.def("connect", &connect, py::arg("library"));
  m.def("take_error", &take_error);
  m.def("set_progress", &set_progress, py::arg("function"));
}
