// Vectors on cache-line boundaries: a 64-byte load across two lines costs two. New elements are not initialised
// unless a value is given: the thread that fills a large array should be the first to touch it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

namespace otcore {

template <class T>
struct LineAllocator {
  using value_type = T;
  static constexpr std::size_t kLine = 64;
  LineAllocator() = default;
  template <class U>
  LineAllocator(const LineAllocator<U>&) {}
  // Aligned by hand, with the address that malloc gave in front: its own aligned allocation is several times slower.
  T* allocate(std::size_t n) {
    char* whole = static_cast<char*>(::operator new(n * sizeof(T) + kLine + sizeof(void*)));
    const std::uintptr_t first = reinterpret_cast<std::uintptr_t>(whole) + sizeof(void*);
    char* start = whole + sizeof(void*) + (kLine - first % kLine) % kLine;
    std::memcpy(start - sizeof(void*), &whole, sizeof(void*));
    return reinterpret_cast<T*>(start);
  }
  void deallocate(T* p, std::size_t) {
    char* whole;
    std::memcpy(&whole, reinterpret_cast<char*>(p) - sizeof(void*), sizeof(void*));
    ::operator delete(whole);
  }
  template <class U>
  void construct(U* p) noexcept { ::new (static_cast<void*>(p)) U; }
  template <class U, class... Args>
  void construct(U* p, Args&&... args) { ::new (static_cast<void*>(p)) U(static_cast<Args&&>(args)...); }
  template <class U>
  bool operator==(const LineAllocator<U>&) const { return true; }
  template <class U>
  bool operator!=(const LineAllocator<U>&) const { return false; }
};

template <class T>
using Aligned = std::vector<T, LineAllocator<T>>;

}  // namespace otcore
