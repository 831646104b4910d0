// Errors of CUDA in words with a remedy, and what `python -m otcore info` tells of GPU and driver.
#include "device.h"

#ifndef OTCORE_EMULATED
namespace otcore::cuda {

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  const std::string said = std::string("CUDA: ") + cudaGetErrorString(error);
  cudaGetLastError();  // forgotten, unless the context itself is lost
  switch (error) {
    case cudaErrorInsufficientDriver:
      throw std::runtime_error(said + "; this otcore needs the driver of CUDA " + std::to_string(CUDART_VERSION / 1000) +
                               " or later: update the driver, or use CPU tensors");
    case cudaErrorNoKernelImageForDevice:
      throw std::runtime_error(said + "; this otcore has code for compute capability 8.0 and later: build it on that "
                                      "machine with CMAKE_CUDA_ARCHITECTURES=native, or use backend=\"triton\"");
    case cudaErrorMemoryAllocation:
      throw std::runtime_error(said + "; free memory on the GPU, or solve smaller batches at a time");
    case cudaErrorNoDevice:
      throw std::runtime_error(said + "; use CPU tensors");
    default:
      throw std::runtime_error(said);
  }
}

}  // namespace otcore::cuda

namespace {

std::string version(int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); }

}  // namespace

// Why the driver cannot run the kernels; empty if it can.
std::string driver_refusal() {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return "no NVIDIA driver on this machine";
  if (driver / 1000 >= CUDART_VERSION / 1000) return "";
  return "the driver is for CUDA " + version(driver) + ", too old for these kernels of CUDA " + version(CUDART_VERSION) +
         ": update it";
}

// One line on what the kernels can run on here.
std::string device_report() {
  int driver = 0, count = 0;
  cudaDriverGetVersion(&driver);
  if (const std::string refusal = driver_refusal(); !refusal.empty()) return refusal;
  const cudaError_t error = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (error != cudaSuccess || count == 0) return "a driver for CUDA " + version(driver) + ", but no GPU";
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) return "a GPU that does not answer";
  return std::string(properties.name) + ", compute capability " + std::to_string(properties.major) + "." +
         std::to_string(properties.minor) + ", driver for CUDA " + version(driver);
}
#endif
