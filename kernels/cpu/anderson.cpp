#include "anderson.h"

#include <cmath>

#include "dispatch.h"
#include "pool.h"

namespace otcore {
namespace {

constexpr double kRidge = 1e-10;  // of the trace

// Solves the symmetric positive definite n x n system in place (Cholesky); false where it is not.
bool solve(std::vector<double>& a, std::vector<double>& b, int n) {
  for (int j = 0; j < n; j++) {
    for (int i = j; i < n; i++) {
      double s = a[i * n + j];
      for (int k = 0; k < j; k++) s -= a[i * n + k] * a[j * n + k];
      if (i == j) {
        if (!(s > 0)) return false;
        a[j * n + j] = std::sqrt(s);
      } else {
        a[i * n + j] = s / a[j * n + j];
      }
    }
  }
  for (int i = 0; i < n; i++) {
    for (int k = 0; k < i; k++) b[i] -= a[i * n + k] * b[k];
    b[i] /= a[i * n + i];
  }
  for (int i = n - 1; i >= 0; i--) {
    for (int k = i + 1; k < n; k++) b[i] -= a[k * n + i] * b[k];
    b[i] /= a[i * n + i];
  }
  return true;
}

}  // namespace

Anderson::Anderson(std::vector<double> weights, int window)
    : weights_(std::move(weights)), window_(window), residuals_(window), images_(window), gram_(window * window) {}

void Anderson::step(std::vector<double>& z, const std::vector<double>& image, int threads) {
  const long n = static_cast<long>(z.size());
  if (fresh_) {
    residual_.resize(n), image_.resize(n);
    for (long i = 0; i < n; i++) residual_[i] = image[i] - z[i];
    image_ = image, z = image, fresh_ = false;
    return;
  }
  newest_ = count_ ? (newest_ + 1) % window_ : 0;
  if (count_ < window_) count_++;
  std::vector<double>&dr = residuals_[newest_], &di = images_[newest_];
  dr.resize(n), di.resize(n);
  // The products of the newest difference and of the residual with all differences, block by block.
  std::vector<double> row(count_), rhs(count_), parts(2 * count_ * blocks_of(n));
  each_block_of(n, threads, [&](long first, long last, long block) {
    for (long i = first; i < last; i++) {
      const double res = image[i] - z[i];
      dr[i] = res - residual_[i], di[i] = image[i] - image_[i];
      residual_[i] = res, image_[i] = image[i];
    }
    std::vector<const double*> held;
    for (int h = 0; h < count_; h++) held.push_back(&residuals_[h][first]);
    double* own = &parts[2 * count_ * block];
    isa().dots(held.data(), count_, &weights_[first], &dr[first], last - first, own);
    isa().dots(held.data(), count_, &weights_[first], &residual_[first], last - first, own + count_);
  });
  for (long block = 0; block < blocks_of(n); block++)
    for (int h = 0; h < count_; h++) {
      row[h] += parts[2 * count_ * block + h], rhs[h] += parts[2 * count_ * block + count_ + h];
    }
  for (int h = 0; h < count_; h++) gram_[newest_ * window_ + h] = gram_[h * window_ + newest_] = row[h];
  double trace = 0;
  for (int h = 0; h < count_; h++) trace += gram_[h * window_ + h];
  std::vector<double> a(count_ * count_);
  for (int i = 0; i < count_; i++)
    for (int j = 0; j < count_; j++) a[i * count_ + j] = gram_[i * window_ + j] + (i == j ? kRidge * trace : 0);
  z = image;
  if (!solve(a, rhs, count_)) {
    reset();
    return;
  }
  each_block_of(n, threads, [&](long first, long last, long) {
    std::vector<const double*> held;
    for (int h = 0; h < count_; h++) held.push_back(&images_[h][first]);
    isa().combine(held.data(), count_, rhs.data(), last - first, &z[first]);
  });
}

}  // namespace otcore
