#include "sliced.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "aligned.h"
#include "dispatch.h"
#include "pool.h"

namespace otcore {
namespace {

constexpr long kGroup = 64;         // most directions at a time, or more where points are few:
constexpr long kPositions = 24000;  // as many as there are so many projections of
constexpr long kTask = 8;       // tiles of points projected by one task
constexpr double kSerial = 4e4;  // nanoseconds below which waking threads costs more than it saves
constexpr double kMany = 1e6;    // nanoseconds below which items are spread over threads, one each

// Nanoseconds on one core, roughly.
template <class T>
double work_of(const SlicedItem<T>& item, const SlicedSettings& s) {
  return static_cast<double>(item.n + item.m) * static_cast<double>(s.directions) * (4 + 0.02 * s.d);
}

// Asks for large pages: those of 4 KiB take longer to come by than the work in them.
template <class T>
void use_large_pages(T* start, long count) {
#if defined(__linux__)
  constexpr std::uintptr_t kPage = 2 << 20;
  const std::uintptr_t first = (reinterpret_cast<std::uintptr_t>(start) + kPage - 1) / kPage * kPage;
  const std::uintptr_t last = reinterpret_cast<std::uintptr_t>(start + count) / kPage * kPage;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)start, (void)count;
#endif
}

// As many directions at a time as projections are stored of, in groups that are alike.
template <class T>
long group_of(const SlicedItem<T>& item, const SlicedSettings& s) {
  const long most = std::max(kGroup, kPositions / (item.n + item.m)), groups = (s.directions + most - 1) / most;
  return (s.directions + groups - 1) / groups;
}

long padded(long n) { return (n + kTile - 1) / kTile * kTile; }

// One cloud: its projections on a group of directions [group][width], and its slopes in tiles [tiles][d][kTile].
template <class T>
struct Sheet {
  long n, width;
  const T* points;
  T* slope;
  Aligned<T> rows, slopes;
  Aligned<double> weights, levels;
  double mass = 1;

  Sheet(const T* points, const T* given, T* slope, long n, int d, long group, bool even)
      : n(n), width(padded(n)), points(points), slope(slope) {
    rows.resize(group * width);
    use_large_pages(rows.data(), group * width);
    if (slope) {
      slopes.resize(width * d);
      use_large_pages(slopes.data(), width * d), use_large_pages(slope, n * d);
    }
    if (given) {
      weights.resize(n);
      mass = 0;
      for (long i = 0; i < n; i++) mass += static_cast<double>(given[i]);
      for (long i = 0; i < n; i++) weights[i] = static_cast<double>(given[i]) / mass;
    } else if (!even) {
      levels.resize(n);
      for (long i = 0; i < n; i++) levels[i] = static_cast<double>(i + 1) / static_cast<double>(n);
    }
  }

  // The points of a tile as [d][kTile].
  void pack(long tile, int d, T* to) const {
    const long first = tile * kTile, count = std::min<long>(kTile, n - first);
    verbs(T()).transpose({points + first * d, d, count, d, to, kTile, T(1)});
    for (long i = count; i < kTile; i++)
      for (int k = 0; k < d; k++) to[k * kTile + i] = 0;
  }

  void unpack(long tile, int d, T factor) {
    const T* from = slopes.data() + tile * d * kTile;
    const long first = tile * kTile, count = std::min<long>(kTile, n - first);
    verbs(T()).transpose({from, kTile, d, count, slope + first * d, d, factor});
  }

  const double* weighted() const { return weights.empty() ? nullptr : weights.data(); }
};

// Buffers of one thread, made when it first needs them.
template <class T>
struct Buffers {
  Aligned<int64_t> keys;
  Aligned<T> positions;
  Aligned<double> levels;
  Aligned<uint16_t> bucket;
  Aligned<uint32_t> counts;
  SliceScratch<T> scratch{};

  const SliceScratch<T>& get(long points, bool even) {
    if (keys.empty()) {
      const long size = padded(points) + kSliceSlack;
      keys.resize(3 * size), positions.resize(4 * size), bucket.resize(size);
      scratch.stride = std::min(points, kMostBuckets) + 1, counts.resize(kSortLevels * scratch.stride);
      if (!even) levels.resize(2 * size);
      for (int i = 0; i < 3; i++) scratch.keys[i] = keys.data() + i * size;
      for (int i = 0; i < 2; i++) {
        scratch.sorted[i] = positions.data() + i * size, scratch.slopes[i] = positions.data() + (2 + i) * size;
        scratch.levels[i] = even ? nullptr : levels.data() + i * size;
      }
      scratch.bucket = bucket.data(), scratch.counts = counts.data();
    }
    return scratch;
  }
};

template <class T>
bool sliced_item(const SlicedItem<T>& item, const SlicedSettings& s, int threads) {
  const int d = s.d;
  const long count = s.directions, group = group_of(item, s);
  const bool even = item.n == item.m && !item.a && !item.b;
  if (work_of(item, s) < kSerial) threads = 1;
  Sheet<T> x(item.x, item.a, item.slope_x, item.n, d, group, even), y(item.y, item.b, item.slope_y, item.m, d, group, even);
  const long tiles_x = x.width / kTile, tiles = tiles_x + y.width / kTile, tasks = (tiles + kTask - 1) / kTask;
  Aligned<T> back(item.slope_x || item.slope_y ? count * d : 0);  // the directions, one after another
  for (long l = 0; !back.empty() && l < count; l++)
    for (int k = 0; k < d; k++) back[l * d + k] = item.directions[k * count + l];
  std::vector<Buffers<T>> buffers(threads);
  std::vector<double> costs(count);
  std::atomic<bool> finite{true};
  const auto each_tile = [&](const auto& f) {
    parallel_for(threads, tasks, [&](long task) {
      Aligned<T> points(d * kTile);
      for (long t = task * kTask; t < std::min(tiles, (task + 1) * kTask); t++)
        if (t < tiles_x) f(x, t, points.data());
        else f(y, t - tiles_x, points.data());
    });
  };
  for (long first = 0, before = 0;; first += before) {
    // The slopes along the directions before, then the projections on the next ones: tile by tile, in the same memory.
    const long here = std::min(group, count - first);
    each_tile([&](Sheet<T>& sheet, long tile, T* points) {
      T* rows = sheet.rows.data() + tile * kTile;
      if (first > 0 && sheet.slope)
        verbs(T()).product({rows, sheet.width, before, back.data() + (first - before) * d, d, d,
                            sheet.slopes.data() + tile * d * kTile, kTile, first > before});
      if (here == 0) return;
      sheet.pack(tile, d, points);
      verbs(T()).product({points, kTile, d, item.directions + first, count, here, rows, sheet.width, false});
    });
    if (here == 0) break;
    parallel_for(threads, here, [&](long l) {
      const SliceScratch<T>& scratch = buffers[threads > 1 ? seat() : 0].get(std::max(item.n, item.m), even);
      const Line<T> line{x.rows.data() + l * x.width, y.rows.data() + l * y.width, item.n, item.m,
                         x.weighted(), y.weighted(), x.levels.data(), y.levels.data(), s.p,
                         item.slope_x != nullptr, item.slope_y != nullptr};
      if (!verbs(T()).slice(line, scratch, &costs[first + l])) finite.store(false, std::memory_order_relaxed);
    });
    if (!finite.load()) return false;
    before = here;
  }
  const double mass = (x.mass + y.mass) / 2;
  double mean = 0;
  for (long l = 0; l < count; l++) mean += costs[l], item.costs[l] = static_cast<T>(mass * costs[l]);
  mean *= mass / static_cast<double>(count);
  *item.value = static_cast<T>(s.root ? std::pow(mean, 1 / s.p) : mean);
  if (back.empty()) return true;
  double factor = mass / static_cast<double>(count);
  if (s.root) factor *= mean > 0 ? std::pow(mean, 1 / s.p - 1) / s.p : 0;
  each_tile([&](Sheet<T>& sheet, long tile, T*) {
    if (sheet.slope) sheet.unpack(tile, d, static_cast<T>(factor));
  });
  return true;
}

}  // namespace

template <class T>
bool sliced(const SlicedItem<T>* items, long count, const SlicedSettings& s) {
  double work = 0;
  for (long i = 0; i < count; i++) work = std::max(work, work_of(items[i], s));
  std::atomic<bool> finite{true};
  const auto one = [&](long i, int threads) {
    if (!sliced_item(items[i], s, threads)) finite.store(false, std::memory_order_relaxed);
  };
  if (count > 1 && (work < kMany || count >= 4 * s.threads)) {
    parallel_for(s.threads, count, [&](long i) { one(i, 1); });
  } else {
    for (long i = 0; i < count; i++) one(i, s.threads);
  }
  return finite.load();
}

template <class T>
void scale_items(const T* from, const T* factors, const long* sizes, long count, int threads, T* to) {
  for (long i = 0; i < count; i++) {
    const T factor = factors[i];
    each_block_of(sizes[i], threads, [&](long first, long last, long) {
      for (long k = first; k < last; k++) to[k] = factor * from[k];
    });
    from += sizes[i], to += sizes[i];
  }
}

template void scale_items(const float*, const float*, const long*, long, int, float*);
template void scale_items(const double*, const double*, const long*, long, int, double*);
template bool sliced(const SlicedItem<float>*, long, const SlicedSettings&);
template bool sliced(const SlicedItem<double>*, long, const SlicedSettings&);

}  // namespace otcore
