#include "levels.h"

#include <algorithm>
#include <cmath>

namespace otcore {
namespace {

constexpr double kFurthest = 3;  // radii within which every point of a cluster has to be
constexpr double kClearly = 4;   // half-diagonals in radii from which a node is not looked into as a cluster

// Points [first, last) of a cloud: their mass, and weighted sums of coordinates and of squares.
struct Moments {
  double mass = 0, square = 0;
  std::vector<double> sum;
};

class Gatherer {
 public:
  Gatherer(const Cloud& fine, double radius) : c_(fine), radius_(radius) { of.resize(fine.n); }

  std::vector<double> points, masses;  // of the clusters
  std::vector<int> of;
  bool full = false;  // too many clusters to be worth it

  // Clusters of the places [first, last): of a node of the tree, or (-1) of a part of a tile.
  void gather(long node, long first, long last) {
    if (full) return;
    if (node < 0 || near(node)) {
      const Moments m = moments(first, last);
      if (within(m, first, last)) {
        settle(first, last, m);
        return;
      }
    }
    const long n = last - first;
    if (n <= kFewest) {
      for (long i = first; i < last; i++) settle(i, i + 1, moments(i, i + 1));
      return;
    }
    const long middle = first + halves(n), right = node < 0 ? 0 : c_.tree[node].right;
    gather(right ? node + 1 : -1, first, middle), gather(right ? right : -1, middle, last);
  }

 private:
  Moments moments(long first, long last) const {
    Moments m;
    m.sum.assign(c_.d, 0);
    double plain = 0;
    for (long i = first; i < last; i++) plain += c_.weights[i];
    for (long i = first; i < last; i++) {
      const double w = plain > 0 ? c_.weights[i] : 1;
      for (int k = 0; k < c_.d; k++) {
        const double v = c_.at(i, k);
        m.sum[k] += w * v, m.square += w * v * v;
      }
      m.mass += w;
    }
    return m;
  }

  bool near(long node) const {
    double square = 0;
    for (int k = 0; k < c_.d; k++) {
      const double side = c_.node_hi[node * c_.d + k] - c_.node_lo[node * c_.d + k];
      square += 0.25 * side * side;
    }
    return square <= kClearly * kClearly * radius_ * radius_;
  }

  bool within(const Moments& m, long first, long last) const {
    double square = m.square / m.mass;
    for (int k = 0; k < c_.d; k++) square -= m.sum[k] / m.mass * (m.sum[k] / m.mass);
    if (square > radius_ * radius_) return false;
    for (long i = first; i < last; i++) {
      double away = 0;
      for (int k = 0; k < c_.d; k++) away += (c_.at(i, k) - m.sum[k] / m.mass) * (c_.at(i, k) - m.sum[k] / m.mass);
      if (away > kFurthest * kFurthest * radius_ * radius_) return false;
    }
    return true;
  }

  void settle(long first, long last, const Moments& m) {
    const int own = static_cast<int>(masses.size());
    double mass = 0;
    for (long i = first; i < last; i++) of[i] = own, mass += c_.weights[i];
    for (int k = 0; k < c_.d; k++) points.push_back(c_.centre[k] + m.sum[k] / m.mass);
    masses.push_back(mass);
    full = full || 3 * masses.size() > static_cast<size_t>(c_.n);
  }

  const Cloud& c_;
  double radius_;
};

}  // namespace

Level gather_clusters(const Cloud& fine, double radius, const double* origin) {
  Gatherer all(fine, radius);
  all.gather(0, 0, fine.n);
  Level level;
  if (all.full) return level;
  const long n = static_cast<long>(all.masses.size());
  level.cloud = std::make_unique<Cloud>(all.points.data(), all.masses.data(), n, fine.d, n > kTile, origin);
  std::vector<int> place(n);
  for (long i = 0; i < n; i++) place[level.cloud->order[i]] = static_cast<int>(i);
  level.of = std::move(all.of);
  for (int& q : level.of) q = place[q];
  return level;
}

std::vector<double> extend(const Cloud& coarse, const std::vector<double>& values, const std::vector<double>& slopes,
                           const Cloud& fine, const std::vector<int>& parents) {
  std::vector<double> out(fine.n);
  for (long i = 0; i < fine.n; i++) {
    const int parent = parents[i];
    out[i] = values[parent];
    for (int k = 0; k < fine.d; k++)
      out[i] += slopes[parent * fine.d + k] * (fine.centre[k] + fine.at(i, k) - coarse.centre[k] - coarse.at(parent, k));
  }
  return out;
}

}  // namespace otcore
