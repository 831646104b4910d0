#include "field.h"

#include <algorithm>
#include <cmath>

#include "dispatch.h"
#include "pool.h"

namespace otcore {
namespace {

constexpr long kTilesForTrees = 256;
constexpr long kTilesForExpansions = 32;
constexpr double kCrowded = 0.3;      // of the points, in boxes that suit expansions, for them to be tried
constexpr double kCostOfPoint = 150;  // of an expansion, in pairs of points: to nodes and from nodes
constexpr double kCostOfBoxes = 2500;  // from box to box and back
constexpr double kSpare = 6;  // bits by which a sum may be less right than asked for before it is done again
constexpr long kBlock = 16;           // boxes of one task
constexpr long kSmallTask = 4;        // boxes that one task translates to

template <class F>
void each_block(long count, int threads, const F& f) {
  parallel_for(threads, (count + kBlock - 1) / kBlock, [&](long block) {
    for (long i = block * kBlock; i < std::min(count, (block + 1) * kBlock); i++) f(i);
  });
}

// Adds up counts into where each begins.
void accumulate(std::vector<long>& from) {
  for (size_t i = 1; i < from.size(); i++) from[i] += from[i - 1];
}

}  // namespace

template <class T>
void Field<T>::cut(double bits) {
  boxes_x_.cut(factor_, bits);
  if (!same_) boxes_y_.cut(factor_, bits);
}

template <class T>
void Field<T>::choose(double factor, bool sparse, double bits) {
  factor_ = factor, plan_ = Plan::all, error_ = 0, doubtful_ = std::exp2(kSpare - bits);
  if (x_->tree.empty() || y_->tree.empty()) return;
  const long tiles = std::min(x_->tiles, y_->tiles);
  if (p_ == 2 && x_->d == kPlane && tiles >= kTilesForExpansions) {
    cut(bits);
    if (std::min(boxes_x_.crowded(), side_y().crowded()) > kCrowded) {
      plan_ = Plan::expansions;
      return;
    }
  }
  if (!sparse || tiles < kTilesForTrees) return;
  cut(0);
  plan_ = Plan::trees;
}

template <class T>
void Field<T>::search(const Side<T>& x, const Side<T>& y, bool upper, int threads) {
  view_x_ = boxes_x_.view(x), view_y_ = side_y().view(y);
  if (plan_ == Plan::expansions) {
    each_block(boxes_x_.count(), threads, [&](long i) { verbs(T()).fit(view_x_, i); });
    if (!same_) each_block(boxes_y_.count(), threads, [&](long i) { verbs(T()).fit(view_y_, i); });
  }
  boxes_x_.take_tops(x.top);
  if (!same_) boxes_y_.take_tops(y.top);
  find(upper, threads);
  if (plan_ != Plan::expansions) return;
  const double points = static_cast<double>(x_->n + y_->n) * (same_ ? 0.5 : 1);
  const double cost = points * kCostOfPoint + static_cast<double>(far_.size()) * kCostOfBoxes;
  if (far_pairs_ > cost) return;
  cut(0);
  plan_ = Plan::trees;
  boxes_x_.take_tops(x.top);
  if (!same_) boxes_y_.take_tops(y.top);
  find(upper, threads);
}

template <class T>
void Field<T>::find(bool upper, int threads) {
  std::vector<typename Boxes<T>::Found> found(boxes_x_.count());
  const typename Boxes<T>::Search how{p_, cutoff_, upper, plan_ == Plan::expansions};
  each_block(boxes_x_.count(), threads, [&](long i) { boxes_x_.find(i, side_y(), how, found[i]); });
  assemble(found, upper);
}

template <class T>
void Field<T>::assemble(const std::vector<typename Boxes<T>::Found>& found, bool upper) {
  const Boxes<T>&x = boxes_x_, &y = side_y();
  near_.clear(), far_.clear(), back_.clear();
  near_from_.assign(1, 0), far_from_.assign(1, 0), back_from_.assign(y.count() + 1, 0);
  error_x_.assign(x.count(), 0), error_y_.assign(y.count(), 0);
  error_ = near_pairs_ = far_pairs_ = 0;
  const bool back = upper || !same_;
  for (long i = 0; i < x.count(); i++) {
    const double points = static_cast<double>(x.points(i));
    for (const Tiles& run : found[i].near) near_.push_back(run), near_pairs_ += points * (run.last - run.first) * kTile;
    for (const auto& q : found[i].far) {
      const bool twice = back && !(upper && q.box == i);
      far_.push_back(q.box);
      back_from_[q.box + 1] += twice;
      far_pairs_ += points * y.points(q.box);
      error_x_[i] += q.error * y.mass(q.box);
      std::vector<double>& other = upper ? error_x_ : error_y_;
      if (twice) other[q.box] += q.error * x.mass(i);
      error_ += q.error * x.mass(i) * y.mass(q.box) * (upper && twice ? 4 : 2);
    }
    near_from_.push_back(static_cast<long>(near_.size())), far_from_.push_back(static_cast<long>(far_.size()));
  }
  accumulate(back_from_);
  back_.resize(back_from_.back());
  near_.reserve(1);  // data() of none would stand for all
  std::vector<long> next(back_from_.begin(), back_from_.end() - 1);
  for (long i = 0; i < x.count(); i++)
    for (const auto& q : found[i].far)
      if (back && !(upper && q.box == i)) back_[next[q.box]++] = i;
}

template <class T>
void Field<T>::attach(Pair<T>& pair) const {
  const bool all = plan_ == Plan::all;
  pair.near = all ? nullptr : near_.data();
  pair.near_from = near_from_.data(), pair.box_of = boxes_x_.box_of();
}

template <class T>
bool Field<T>::doubtful(bool transpose, long place, double sum) const {
  if (plan_ != Plan::expansions) return false;
  const bool other = transpose && !same_;
  const Boxes<T>& boxes = other ? boxes_y_ : boxes_x_;
  return (other ? error_y_ : error_x_)[boxes.box_of()[place / kTile]] > doubtful_ * sum;
}

template <class T>
void Field<T>::note(bool transpose, long first, long last, const double* sums) {
  if (plan_ != Plan::expansions) return;
  Boxes<T>& boxes = transpose && !same_ ? boxes_y_ : boxes_x_;
  for (long t = first; t < last; t++, sums += kTile) {
    double least = sums[0];
    for (int r = 1; r < kTile; r++) least = std::min(least, sums[r]);
    boxes.need[t] = least > 0 && least < 1 ? -std::log2(least) : 0;
  }
}

template <class T>
void Field<T>::collect(bool rows, Sums sums, const double* values, int width, int threads) {
  rows_ = rows || same_, sums_ = sums, width_ = sums == Sums::gradient ? kPlane : width;
  const long size = (1 + width_) * kNodes;
  nodes_y_.resize(side_y().count() * size);
  each_block(side_y().count(), threads, [&](long i) {
    verbs(T()).collect(view_y_, i, sums, values, width, &nodes_y_[i * size]);
  });
  local_x_.resize(boxes_x_.count() * size);
  if (rows_) return;
  nodes_x_.resize(boxes_x_.count() * size);
  each_block(boxes_x_.count(), threads, [&](long i) {
    verbs(T()).collect(view_x_, i, sums, values, width, &nodes_x_[i * size]);
  });
  local_y_.resize(boxes_y_.count() * size);
}

template <class T>
long Field<T>::translations() const {
  if (plan_ != Plan::expansions) return 0;
  return (boxes_x_.count() + kSmallTask - 1) / kSmallTask + (rows_ ? 0 : (boxes_y_.count() + kSmallTask - 1) / kSmallTask);
}

template <class T>
void Field<T>::translate(long task) {
  const long x_tasks = (boxes_x_.count() + kSmallTask - 1) / kSmallTask, size = (1 + width_) * kNodes;
  const bool transpose = task >= x_tasks;
  const long begin = (transpose ? task - x_tasks : task) * kSmallTask;
  const Boxes<T>& boxes = transpose ? boxes_y_ : boxes_x_;
  Aligned<T>& local = transpose ? local_y_ : local_x_;
  for (long i = begin; i < std::min(begin + kSmallTask, boxes.count()); i++) {
    T* own = &local[i * size];
    std::fill(own, own + size, T(0));
    if (transpose) {
      verbs(T()).translate(view_y_, i, view_x_, &back_[back_from_[i]], back_from_[i + 1] - back_from_[i], sums_, width_,
                           nodes_x_.data(), own);
      continue;
    }
    verbs(T()).translate(view_x_, i, view_y_, &far_[far_from_[i]], far_from_[i + 1] - far_from_[i], sums_, width_,
                         nodes_y_.data(), own);
    // What a search of the upper half leaves to the lower.
    if (same_)
      verbs(T()).translate(view_x_, i, view_y_, &back_[back_from_[i]], back_from_[i + 1] - back_from_[i], sums_, width_,
                           nodes_y_.data(), own);
  }
}

template <class T>
void Field<T>::evaluate(bool transpose, double* sums, double* out, int threads) {
  const Boxes<T>& boxes = transpose ? boxes_y_ : boxes_x_;
  const Boxed<T>& view = transpose ? view_y_ : view_x_;
  const Aligned<T>& local = transpose ? local_y_ : local_x_;
  each_block(boxes.count(), threads, [&](long i) {
    verbs(T()).evaluate(view, i, sums_, width_, &local[i * (1 + width_) * kNodes], sums, out);
  });
}

template class Field<float>;
template class Field<double>;

}  // namespace otcore
