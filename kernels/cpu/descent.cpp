#include "descent.h"

#include <algorithm>
#include <utility>

#include "pool.h"

namespace otcore {

template <class T>
bool Descent<T>::to(double radius, double share_x, double share_y, int threads) {
  const bool same = fine_.same();
  if (fine_.x().tree.empty() || fine_.y().tree.empty()) radius = 0;
  if (started_ && radius == radius_) return false;
  const double* origin = cost_.p == 1 ? fine_.x().centre.data() : nullptr;
  Level x, y;
  if (radius > 0) {
    parallel_for(threads, same ? 1 : 2, [&](long side) {
      std::unique_ptr<Clusters>& clusters = side == 0 ? clusters_x_ : clusters_y_;
      if (!clusters) clusters = std::make_unique<Clusters>(side == 0 ? fine_.x() : fine_.y());
      (side == 0 ? x : y) = clusters->gather(radius, origin);
    });
    if (!same && !(x.cloud && y.cloud)) x = {}, y = {};
  }
  radius_ = radius;
  if (std::exchange(started_, true) && !own_ && !x.cloud) return false;
  std::unique_ptr<Term<T>> next;
  if (x.cloud) next = std::make_unique<Term<T>>(*x.cloud, same ? *x.cloud : *y.cloud, cost_, same, balanced_);
  Term<T>&from = term(), &into = next ? *next : fine_;
  if (own_) {
    // The gradients of both potentials, from copies: computing them may move potentials.
    const std::vector<double> f = from.f, g = from.g;
    auto carry = [&](const Cloud& x, const Cloud& y, const std::vector<double>& own, const std::vector<double>& other,
                     double share, const Cloud& next, const std::vector<int>& parents, std::vector<double>& now,
                     std::vector<double>& before) {
      std::vector<double> slopes;
      Term<T> term(x, y, cost_, same, balanced_);
      term.temperature(from.eps());
      term.f = own, term.g = other;
      term.grad(true, threads, slopes);
      for (double& v : slopes) v *= share;
      now = extend(x, own, slopes, next, parents);
      if (!before.empty()) before = extend(x, before, slopes, next, parents);
    };
    carry(from.x(), from.y(), f, g, share_x, into.x(), parents(x, x_, fine_.x().n), into.f, f_before);
    if (!same) carry(from.y(), from.x(), g, f, share_y, into.y(), parents(y, y_, fine_.y().n), into.g, g_before);
  }
  own_ = std::move(next);
  x_ = std::move(x), y_ = std::move(y);
  return true;
}

template <class T>
void Descent<T>::restrict() {
  if (!own_) return;
  auto mean = [](const Level& level, const std::vector<double>& fine, std::vector<double>& out) {
    for (size_t q = 0; q < level.place.size(); q++) {
      double sum = 0;
      for (long i = level.first[q]; i < level.first[q + 1]; i++) sum += fine[i];
      out[level.place[q]] = sum / static_cast<double>(level.first[q + 1] - level.first[q]);
    }
  };
  mean(x_, fine_.f, own_->f);
  if (!fine_.same()) mean(y_, fine_.g, own_->g);
}

template class Descent<float>;
template class Descent<double>;

}  // namespace otcore
