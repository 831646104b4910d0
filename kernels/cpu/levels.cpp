#include "levels.h"

#include <algorithm>
#include <cmath>

namespace otcore {
namespace {

constexpr double kFurthest = 3;  // radii within which every point of a cluster has to be
constexpr double kClearly = 4;   // half-diagonals in radii from which a node is not looked into as a cluster

// Adds the points [first, last), each weighing 1 unless `weighted`: mass, weighted squares, weighted sums [d].
void add_moments(const Cloud& c, long first, long last, bool weighted, double* out) {
  for (long i = first; i < last; i++) {
    const double w = weighted ? c.weights[i] : 1;
    out[0] += w;
    for (int k = 0; k < c.d; k++) {
      const double v = c.at(i, k);
      out[2 + k] += w * v, out[1] += w * v * v;
    }
  }
}

}  // namespace

// One walk along the tree.
class Gatherer {
 public:
  Gatherer(const Clusters& clusters, double radius) : all_(clusters), c_(clusters.fine_), radius_(radius), own_(2 + c_.d) {}

  std::vector<double> points, masses;  // of the clusters
  std::vector<long> first_places;
  bool full = false;  // too many clusters to be worth it

  // Clusters of the places [first, last): of a node of the tree, or (-1) of a part of a tile.
  void gather(long node, long first, long last) {
    if (full) return;
    if (node < 0 || near(node)) {
      if (const double* m = moments(node, first, last); within(m, node, first, last)) {
        settle(first, m);
        return;
      }
    }
    const long n = last - first;
    if (n <= kFewest) {
      for (long i = first; i < last; i++) settle(i, moments(-1, i, i + 1));
      return;
    }
    const long middle = first + halves(n), right = node < 0 ? 0 : c_.tree[node].right;
    gather(right ? node + 1 : -1, first, middle), gather(right ? right : -1, middle, last);
  }

 private:
  // Points without weight count as if each had the same.
  const double* moments(long node, long first, long last) {
    if (node >= 0 && all_.moments(node)[0] > 0) return all_.moments(node);
    std::fill(own_.begin(), own_.end(), 0.0);
    add_moments(c_, first, last, true, own_.data());
    massless_ = !(own_[0] > 0);
    if (massless_) {
      std::fill(own_.begin(), own_.end(), 0.0);
      add_moments(c_, first, last, false, own_.data());
    }
    return own_.data();
  }

  bool near(long node) const {
    double square = 0;
    for (int k = 0; k < c_.d; k++) {
      const double side = c_.node_hi[node * c_.d + k] - c_.node_lo[node * c_.d + k];
      square += 0.25 * side * side;
    }
    return square <= kClearly * kClearly * radius_ * radius_;
  }

  bool within(const double* m, long node, long first, long last) const {
    double square = m[1] / m[0], corner = 0;
    for (int k = 0; k < c_.d; k++) {
      const double mean = m[2 + k] / m[0];
      square -= mean * mean;
      if (node < 0) continue;
      const double side = std::max(c_.node_hi[node * c_.d + k] - mean, mean - c_.node_lo[node * c_.d + k]);
      corner += side * side;
    }
    const double furthest = kFurthest * kFurthest * radius_ * radius_;
    if (square > radius_ * radius_) return false;
    if (node >= 0 && corner <= furthest) return true;
    for (long i = first; i < last; i++) {
      double away = 0;
      for (int k = 0; k < c_.d; k++) {
        const double side = c_.at(i, k) - m[2 + k] / m[0];
        away += side * side;
      }
      if (away > furthest) return false;
    }
    return true;
  }

  void settle(long first, const double* m) {
    first_places.push_back(first);
    masses.push_back(m == own_.data() && massless_ ? 0 : m[0]);
    for (int k = 0; k < c_.d; k++) points.push_back(c_.centre[k] + m[2 + k] / m[0]);
    full = full || 3 * masses.size() > static_cast<size_t>(c_.n);
  }

  const Clusters& all_;
  const Cloud& c_;
  double radius_;
  std::vector<double> own_;
  bool massless_ = false;  // what own_ holds
};

Clusters::Clusters(const Cloud& fine) : fine_(fine), moments_(fine.tree.size() * (2 + fine.d)) { add_up(0); }

void Clusters::add_up(long node) {
  const Node& n = fine_.tree[node];
  double* own = moments(node);
  if (!n.right) {
    add_moments(fine_, n.first * kTile, std::min(n.last * kTile, fine_.n), true, own);
    return;
  }
  for (const long half : {node + 1, n.right}) {
    add_up(half);
    for (int q = 0; q < 2 + fine_.d; q++) own[q] += moments(half)[q];
  }
}

Level Clusters::gather(double radius, const double* origin) const {
  Gatherer all(*this, radius);
  all.gather(0, 0, fine_.n);
  Level level;
  if (all.full) return level;
  const long n = static_cast<long>(all.masses.size());
  level.cloud = std::make_unique<Cloud>(all.points.data(), all.masses.data(), n, fine_.d, n > kTile, origin);
  level.place.resize(n);
  for (long i = 0; i < n; i++) level.place[level.cloud->order[i]] = static_cast<int>(i);
  level.first = std::move(all.first_places);
  level.first.push_back(fine_.n);
  return level;
}

std::vector<int> parents(const Level& next, const Level& now, long n) {
  const long clusters = next.cloud ? static_cast<long>(next.place.size()) : n;
  std::vector<int> out(clusters);
  long at = 0;
  for (long q = 0; q < clusters; q++) {
    const long first = next.cloud ? next.first[q] : q;
    while (now.cloud && now.first[at + 1] <= first) at++;
    out[next.cloud ? next.place[q] : q] = now.cloud ? now.place[at] : static_cast<int>(first);
  }
  return out;
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
