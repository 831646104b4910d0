#include "kernel_norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "aligned.h"
#include "dispatch.h"
#include "pool.h"

namespace otcore {
namespace {

constexpr double kLog2e = 1.4426950408889634074;
constexpr double kSerial = 1.5e6;  // multiply-adds below which waking threads costs more than it saves
constexpr double kMany = 2e6;      // multiply-adds below which items are spread over threads, one each
constexpr long kBlocks = 32;       // even

const Verbs<float>& verbs(float) { return isa().f32; }
const Verbs<double>& verbs(double) { return isa().f64; }

// A power of two by which to multiply coordinates, exactly: blurs are then about 1, or less where the clouds would
// otherwise be wider than 2^55, and the squares of distances stay in the range of float on both sides.
template <class T>
double unit_scale(const NormItem<T>& item, int d, const NormSettings& s) {
  double widest = 0;
  for (int k = 0; k < d; k++) {
    T lo = item.x[k], hi = lo;
    for (long i = 0; i < item.n; i++) lo = std::min(lo, item.x[i * d + k]), hi = std::max(hi, item.x[i * d + k]);
    for (long j = 0; j < item.m; j++) lo = std::min(lo, item.y[j * d + k]), hi = std::max(hi, item.y[j * d + k]);
    widest = std::max(widest, static_cast<double>(hi) - static_cast<double>(lo));
  }
  int widest_exponent = 0, blur_exponent = 0;
  if (std::isfinite(widest)) std::frexp(widest, &widest_exponent);
  const double most = std::ldexp(1.0, 55 - widest_exponent);
  if (s.kernel == Kernel::energy) return most;
  std::frexp(*std::min_element(s.blurs, s.blurs + s.scales), &blur_exponent);
  return std::min(most, std::ldexp(1.0, -blur_exponent));
}

// The two clouds of an item in tiles, scaled, and the constants of the kernel in these units.
template <class T>
class Packed {
 public:
  Packed(const NormItem<T>& item, int d, const NormSettings& s)
      : unit(unit_scale(item, d, s)), split((item.n + kTile - 1) / kTile), tiles(split + (item.m + kTile - 1) / kTile) {
    u_.resize(tiles * kTile * d), weight_.resize(tiles * kTile);
    pack(item.x, item.a, item.n, d, 0, T(1));
    pack(item.y, item.b, item.m, d, split, T(-1));
    constexpr double most = sizeof(T) == 4 ? 1e30 : 1e300;  // beyond it only points that coincide see each other
    for (int i = 0; s.kernel != Kernel::energy && i < s.scales; i++) {
      const double blur = s.blurs[i] * unit, square = 1 / (blur * blur);
      const double rates[] = {0.5 * kLog2e * square, kLog2e / blur, 0, square};
      const double slopes[] = {square, 1 / blur, 0, 2 * square};
      rate_.push_back(static_cast<T>(std::min(most, rates[static_cast<int>(s.kernel)])));
      slope_.push_back(static_cast<T>(std::min(most, slopes[static_cast<int>(s.kernel)])));
    }
    const double raised[] = {static_cast<double>(item.n), static_cast<double>(item.m)};
    for (int i = 0; i < 2; i++) within_[i] = s.unbiased && raised[i] > 1 ? raised[i] / (raised[i] - 1) : 1;
  }

  Radial<T> radial(const NormSettings& s, int d, bool grad) const {
    return {tiles,        split,         d,    u_.data(), weight_.data(), s.kernel, static_cast<int>(rate_.size()),
            rate_.data(), slope_.data(), grad, {within_[0], within_[1]}};
  }
  double weight(long place) const { return static_cast<double>(weight_[place]); }
  double within(bool second) const { return within_[second]; }

  const double unit;
  const long split, tiles;

 private:
  void pack(const T* points, const T* weights, long n, int d, long tile, T sign) {
    const long padded = (n + kTile - 1) / kTile * kTile;
    for (long i = 0; i < padded; i++) {
      const long source = std::min(i, n - 1), t = tile + i / kTile;
      weight_[t * kTile + i % kTile] = i < n ? sign * weights[i] : T(0);
      for (int k = 0; k < d; k++)
        u_[(t * d + k) * kTile + i % kTile] = static_cast<T>(static_cast<double>(points[source * d + k]) * unit);
    }
  }

  Aligned<T> u_, weight_;
  std::vector<T> rate_, slope_;
  double within_[2];
};

// Every pair of `blocks` blocks once, in rounds of pairs that share no block (a round-robin tournament): tasks of a
// round write to points of their own, and all are added in one order whatever the number of threads.
template <class F>
void each_pair(long blocks, int threads, F&& f) {
  parallel_for(threads, blocks, [&](long i) { f(i, i); });
  for (long round = 0; round < blocks - 1; round++)
    parallel_for(threads, blocks / 2, [&](long task) {
      const long around = blocks - 1;
      const long i = task == 0 ? around : (round + task) % around, j = (round + around - task) % around;
      f(std::min(i, j), std::max(i, j));
    });
}

template <class T>
void norm(const NormItem<T>& item, int d, const NormSettings& s, int threads) {
  const Packed<T> packed(item, d, s);
  const long tiles = packed.tiles, blocks = tiles < 4 ? 1 : std::min(kBlocks, tiles / 2 / 2 * 2);
  Aligned<double> sums(tiles * kTile, 0.0), force(item.force ? tiles * kTile * d : 0, 0.0);
  const Radial<T> radial = packed.radial(s, d, item.force != nullptr);
  const double work = static_cast<double>(item.n + item.m) * static_cast<double>(item.n + item.m) * (2 * d + 12);
  const auto block = [&](long i) { return Block{tiles * i / blocks, tiles * (i + 1) / blocks}; };
  each_pair(blocks, work < kSerial ? 1 : threads,
            [&](long i, long j) { verbs(T()).radial(radial, block(i), block(j), sums.data(), force.data()); });
  // The energy is a length, and the others' gradients are inverse lengths.
  const bool energy = s.kernel == Kernel::energy;
  const double to_sum = energy ? 1 / packed.unit : 1, to_force = energy ? 1 : packed.unit;
  const double diagonal = s.unbiased && !energy ? s.scales : 0;
  for (long i = 0; i < item.n + item.m; i++) {
    const bool second = i >= item.n;
    const long place = second ? packed.split * kTile + i - item.n : i;
    item.sums[i] = to_sum * (sums[place] - diagonal * packed.within(second) * packed.weight(place));
    const double* own = force.data() + place / kTile * kTile * d + place % kTile;
    for (int k = 0; item.force && k < d; k++) item.force[i * d + k] = to_force * own[k * kTile];
  }
}

}  // namespace

template <class T>
void kernel_norms(const NormItem<T>* items, long count, int d, const NormSettings& s) {
  double work = 0;
  for (long i = 0; i < count; i++) {
    const double points = static_cast<double>(items[i].n + items[i].m);
    work = std::max(work, points * points * (2 * d + 12));
  }
  if (count > 1 && (work < kMany || count >= 4 * s.threads)) {
    parallel_for(s.threads, count, [&](long i) { norm(items[i], d, s, 1); });
  } else {
    for (long i = 0; i < count; i++) norm(items[i], d, s, s.threads);
  }
}

template void kernel_norms(const NormItem<float>*, long, int, const NormSettings&);
template void kernel_norms(const NormItem<double>*, long, int, const NormSettings&);

}  // namespace otcore
