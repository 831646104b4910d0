#include <cstdint>
#include <map>
#include <memory>

#include "descent.h"

namespace otcore::cuda {

namespace {

constexpr int kBeginThreads = 256, kStepThreads = 256;
// Terms of at most so many points a side are solved in one launch, a block each.
constexpr int kSmall = 512;
constexpr int kSliceElements = 2048, kMostSlices = 64;
constexpr int kTicks = 4;  // iterations queued between two looks at what remains

template <class T>
__global__ void __launch_bounds__(kBeginThreads)
    begin_terms(OTCORE_CONSTANT Batch<T> batch, const double* diameters, OTCORE_CONSTANT Settings settings, OTCORE_CONSTANT State<T> state) {
  const int t = blockIdx.x;
  if (t == 0 && threadIdx.x == 0) *state.remaining = batch.terms();
  begin(batch, t, diameters[t % batch.items], settings, state, *reinterpret_cast<StepMemory*>(shared_memory()));
}

template <class T>
__global__ void __launch_bounds__(kStepThreads, 1) total_slices(OTCORE_CONSTANT Batch<T> batch, OTCORE_CONSTANT Settings settings, OTCORE_CONSTANT State<T> state) {
  const int t = blockIdx.x;
  if (state.finished[t]) return;
  total(batch, t, settings, state, blockIdx.y, state.slices, *reinterpret_cast<StepMemory*>(shared_memory()));
}

template <class T>
__global__ void __launch_bounds__(kStepThreads, 1) residual_slices(OTCORE_CONSTANT Batch<T> batch, OTCORE_CONSTANT Settings settings, OTCORE_CONSTANT State<T> state) {
  const int t = blockIdx.x;
  if (state.finished[t]) return;
  residual(batch, t, settings, state, blockIdx.y, state.slices, *reinterpret_cast<StepMemory*>(shared_memory()));
}

template <class T>
__global__ void __launch_bounds__(kStepThreads, 1) combine_slices(OTCORE_CONSTANT Batch<T> batch, OTCORE_CONSTANT State<T> state) {
  const int t = blockIdx.x;
  combine(batch, t, state, blockIdx.y, state.slices, *reinterpret_cast<StepMemory*>(shared_memory()));
}

// The whole solve of a small term, a block each.
template <class T, int D, int P>
__global__ void __launch_bounds__(kSweepThreads, 1) solve_terms(OTCORE_CONSTANT Batch<T> batch, OTCORE_CONSTANT Settings settings, OTCORE_CONSTANT State<T> state) {
  const int t = blockIdx.x;
  const Term<T> q = term_at(batch, t);
  StepMemory& memory = *reinterpret_cast<StepMemory*>(shared_memory());
  constexpr int kBlock = SweepMemory<T, D, 1>::kBlock;
  const Partials<T> partials = {state.sweeps, state.sweeps + state.length, state.length};
  const int blocks = (q.n + kBlock - 1) / kBlock, segments = (q.m + kBlock - 1) / kBlock;
  while (!state.finished[t]) {
    block_barrier();
    const Scale<T> scale = scale_at<T>(batch.cost, state.eps[t]);
    const double *f = state.z + q.row, *g = state.z + q.column;
    sweep_blocks<T, D, P, 1>(q, batch.d, scale, f, g, {0, 1, blocks}, {0, 1, segments}, partials.rows + q.row,
                             partials.columns + q.column, state.pairs + t);
    block_barrier();
    for (int e = threadIdx.x; e / kWarp * kWarp < q.size(); e += kSweepThreads) {
      const double value = log_sum<T, D, P>(q, batch.d, scale, f, g, partials, 1, 1, e);
      if (e < q.size()) state.log_sums[q.place(e)] = value;
    }
    block_barrier();
    total(batch, t, settings, state, 0, 1, memory);
    block_barrier();
    residual(batch, t, settings, state, 0, 1, memory);
    combine(batch, t, state, 0, 1, memory);
    block_barrier();
  }
}

// The report of each item: its value from those of its terms, the worst status, the largest error.
template <class T>
__global__ void tell(OTCORE_CONSTANT Batch<T> batch, OTCORE_CONSTANT Settings settings, OTCORE_CONSTANT State<T> state, double* told) {
  const int item = blockIdx.x * kWarp + threadIdx.x;
  if (item >= batch.items) return;
  double* out = told + item * kTold;
  for (int kind = 0; kind < batch.kinds; kind++) {
    const int t = kind * batch.items + item;
    const Control c = state.now[t];
    const double pairs = static_cast<double>(state.pairs[t]);
    if (kind == 0) {
      const double gap = c.mass_x - c.mass_y;
      out[0] = c.value + (batch.kinds > 1 ? 0.5 * settings.eps * gap * gap : 0);
      out[1] = c.status, out[2] = c.n_iter, out[3] = c.error, out[4] = pairs;
    } else {
      out[0] -= 0.5 * c.value;
      out[1] = c.status > out[1] ? c.status : out[1];
      out[3] = c.error > out[3] || !(c.error == c.error) ? c.error : out[3];
      out[4] += pairs;
    }
  }
}

// Hands out parts of a block of memory, or counts them where it is null.
struct Arena {
  unsigned char* base;
  std::size_t used = 0;

  template <class U>
  U* take(std::size_t count) {
    U* out = base ? reinterpret_cast<U*>(base + used) : nullptr;
    used += (count * sizeof(U) + 255) / 256 * 256;
    return out;
  }
};

template <class T>
bool small(const Batch<T>& q) {
  return q.n <= kSmall && q.m <= kSmall;
}

// `sweeps`: whether sweeps are made here, and need memory.
template <class T>
State<T> state_in(Arena& arena, const Batch<T>& q, double* potentials, bool sweeps) {
  State<T> s{};
  const std::size_t length = q.length(), terms = q.terms();
  const long longest = q.n > q.m ? q.n : q.m;
  s.length = q.length();
  const bool whole = sweeps && small(q);  // a block takes a whole term
  const Slots slots = !sweeps ? Slots{0, 0} : whole ? Slots{1, 1} : slots_of(q);
  s.slices = whole ? 1 : static_cast<int>((2 * longest + kSliceElements - 1) / kSliceElements);
  s.slices = s.slices < kMostSlices ? s.slices : kMostSlices;
  s.z = potentials;
  s.best = arena.take<double>(length), s.old = arena.take<double>(length), s.image = arena.take<double>(length);
  s.residual = arena.take<double>(length), s.log_sums = arena.take<double>(length);
  s.images = arena.take<T>(kWindow * length), s.residuals = arena.take<T>(kWindow * length);
  s.sums = arena.take<double>(terms * s.slices * kSums), s.products = arena.take<double>(terms * s.slices * 2 * kWindow);
  s.gram = arena.take<double>(terms * kWindow * kWindow), s.eps = arena.take<double>(terms);
  s.now = arena.take<Control>(terms), s.next = arena.take<Control>(terms);
  s.finished = arena.take<int>(terms), s.remaining = arena.take<int>(1);
  s.pairs = arena.take<unsigned long long>(terms);
  s.sweeps = arena.take<T>((slots.rows + slots.columns) * length);
  return s;
}

template <class T>
void decide(const Batch<T>& q, const Settings& settings, const State<T>& state, Stream stream) {
  const dim3 grid(q.terms(), state.slices);
  launch(total_slices<T>, grid, kStepThreads, sizeof(StepMemory), stream, q, settings, state);
  launch(residual_slices<T>, grid, kStepThreads, sizeof(StepMemory), stream, q, settings, state);
  launch(combine_slices<T>, grid, kStepThreads, sizeof(StepMemory), stream, q, state);
}

template <class T>
void iterate(const Batch<T>& q, const Settings& settings, const State<T>& state, Stream stream) {
  sweep(q, state.z, state.eps, state.finished, state.sweeps, state.log_sums, state.pairs, stream);
  decide(q, settings, state, stream);
}

template <class T>
void begin_all(const Batch<T>& q, const double* diameters, const Settings& settings, const State<T>& state, Stream stream) {
  launch(begin_terms<T>, dim3(q.terms()), kBeginThreads, sizeof(StepMemory), stream, q, diameters, settings, state);
}

template <class T>
void tell_all(const Batch<T>& q, const Settings& settings, const State<T>& state, double* told, Stream stream) {
  launch(tell<T>, dim3((q.items + kWarp - 1) / kWarp), kWarp, 0, stream, q, settings, state, told);
}

#ifdef OTCORE_EMULATED

template <class T>
void loop(const Batch<T>& q, const Settings& settings, const State<T>& state, bool (*)(), Stream stream) {
  while (*state.remaining > 0) iterate(q, settings, state, stream);
}

#else

// The body of the loop in a captured graph asks whether it goes on.
__global__ void go_on(const int* remaining, cudaGraphConditionalHandle handle) {
  cudaGraphSetConditional(handle, *remaining > 0 ? 1 : 0);
}

// While it lives, what this thread does is no matter to captures elsewhere.
class Relaxed {
 public:
  Relaxed() { check(cudaThreadExchangeStreamCaptureMode(&mode_)); }
  ~Relaxed() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  Relaxed(const Relaxed&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

// A loop node in the graph that the stream is being captured into.
template <class T>
void capture_loop(const Batch<T>& q, const Settings& settings, const State<T>& state, Stream stream) {
#if CUDART_VERSION < 13000
  throw std::runtime_error("solving inside a CUDA graph needs otcore built with CUDA 13 or later");
#else
  cudaStreamCaptureStatus status;
  cudaGraph_t graph;
  const cudaGraphNode_t* before;
  std::size_t count;
  const cudaGraphEdgeData* edges;
  check(cudaStreamGetCaptureInfo(stream, &status, nullptr, &graph, &before, &edges, &count));
  cudaGraphConditionalHandle handle;
  check(cudaGraphConditionalHandleCreate(&handle, graph, 1, cudaGraphCondAssignDefault));
  cudaGraphNodeParams parameters{};
  parameters.type = cudaGraphNodeTypeConditional;
  parameters.conditional.handle = handle;
  parameters.conditional.type = cudaGraphCondTypeWhile;
  parameters.conditional.size = 1;
  cudaGraphNode_t node;
  check(cudaGraphAddNode(&node, graph, before, edges, count, &parameters));
  const Relaxed relaxed;
  cudaStream_t inner;
  cudaGraph_t body;
  check(cudaStreamCreateWithFlags(&inner, cudaStreamNonBlocking));
  try {
    check(cudaStreamBeginCaptureToGraph(inner, parameters.conditional.phGraph_out[0], nullptr, nullptr, 0,
                                        cudaStreamCaptureModeRelaxed));
    iterate(q, settings, state, inner);
    launch(go_on, dim3(1), 1, 0, inner, static_cast<const int*>(state.remaining), handle);
    check(cudaStreamEndCapture(inner, &body));
    check(cudaStreamUpdateCaptureDependencies(stream, &node, nullptr, 1, cudaStreamSetCaptureDependencies));
  } catch (...) {
    cudaStreamEndCapture(inner, &body);
    cudaStreamDestroy(inner);
    throw;
  }
  check(cudaStreamDestroy(inner));
#endif
}

// Two places on the host for what remains, and the events after which they hold it; kept, as giving pinned memory back
// waits for the device.
class Watch {
 public:
  // That of this thread and the current device.
  static Watch& here() {
    static thread_local std::map<int, std::unique_ptr<Watch>> all;
    int device;
    check(cudaGetDevice(&device));
    std::unique_ptr<Watch>& own = all[device];
    if (!own) own.reset(new Watch);
    return *own;
  }
  ~Watch() {
    for (cudaEvent_t event : events_)
      if (event) cudaEventDestroy(event);
    if (seen_) cudaFreeHost(seen_);
  }
  Watch(const Watch&) = delete;

  void look(int which, const int* remaining, Stream stream) {
    check(cudaMemcpyAsync(seen_ + which, remaining, sizeof(int), cudaMemcpyDeviceToHost, stream));
    check(cudaEventRecord(events_[which], stream));
  }
  int seen(int which) {
    check(cudaEventSynchronize(events_[which]));
    return seen_[which];
  }

 private:
  Watch() {
    const Relaxed relaxed;
    check(cudaMallocHost(&seen_, 2 * sizeof(int)));
    for (cudaEvent_t& event : events_) check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  }

  int* seen_ = nullptr;
  cudaEvent_t events_[2] = {};
};

// The host looks at what remained a few iterations ago while the next ones are queued: the device never waits for it.
template <class T>
void loop(const Batch<T>& q, const Settings& settings, const State<T>& state, bool (*interrupted)(), Stream stream) {
  cudaStreamCaptureStatus status;
  check(cudaStreamIsCapturing(stream, &status));
  if (status == cudaStreamCaptureStatusActive) return capture_loop(q, settings, state, stream);
  Watch& watch = Watch::here();
  for (long round = 0;; round++) {
    for (int k = 0; k < kTicks; k++) iterate(q, settings, state, stream);
    watch.look(round % 2, state.remaining, stream);
    if (round > 0 && watch.seen((round - 1) % 2) == 0) return;
    if (interrupted && interrupted()) {
      cudaStreamSynchronize(stream);
      return;
    }
  }
}

#endif

}  // namespace

template <class T>
std::size_t solve_bytes(const Batch<T>& q) {
  Arena arena{nullptr};
  state_in(arena, q, nullptr, true);
  return arena.used;
}

template <class T>
void solve(const Batch<T>& q, const double* diameters, const Settings& settings, double* potentials, double* told, void* scratch,
           bool (*interrupted)(), Stream stream) {
  Arena arena{static_cast<unsigned char*>(scratch)};
  const State<T> state = state_in(arena, q, potentials, true);
  begin_all(q, diameters, settings, state, stream);
  if (!settings.warm)
    for (const bool turned : {false, true})
      softmin(q, turned, nullptr, state.eps, settings.reach, static_cast<T*>(nullptr), potentials, stream);
  if (small(q))
    dispatch<T>(q.d, q.cost.p, [&](auto d, auto p) {
      constexpr int D = decltype(d)::value, P = decltype(p)::value;
      using Sweep = SweepMemory<T, D, 1>;
      const std::size_t shared = sizeof(Sweep) > sizeof(StepMemory) ? sizeof(Sweep) : sizeof(StepMemory);
      launch(solve_terms<T, D, P>, dim3(q.terms()), kSweepThreads, shared, stream, q, settings, state);
    });
  else
    loop(q, settings, state, interrupted, stream);
  tell_all(q, settings, state, told, stream);
}

template <class T>
Steps<T>::Steps(const Batch<T>& batch, const Settings& settings, double* potentials, void* scratch)
    : batch_(batch), settings_(settings), potentials_(potentials), scratch_(scratch) {}

template <class T>
State<T> Steps<T>::state(std::size_t* used) const {
  Arena arena{static_cast<unsigned char*>(scratch_)};
  const State<T> found = state_in(arena, batch_, potentials_, false);
  if (used) *used = arena.used;
  return found;
}

template <class T>
std::size_t Steps<T>::bytes() const {
  std::size_t used;
  state(&used);
  return used;
}

template <class T>
void Steps<T>::begin(const double* diameters, Stream stream) const {
  begin_all(batch_, diameters, settings_, state(nullptr), stream);
}

template <class T>
StepPlaces Steps<T>::places() const {
  const State<T> s = state(nullptr);
  const auto* base = static_cast<unsigned char*>(scratch_);
  const auto offset = [&](const auto* part) { return reinterpret_cast<const unsigned char*>(part) - base; };
  return {offset(s.eps), offset(s.log_sums), offset(s.finished)};
}

template <class T>
void Steps<T>::decide(Stream stream) const {
  cuda::decide(batch_, settings_, state(nullptr), stream);
}

template <class T>
void Steps<T>::tell(double* told, Stream stream) const {
  tell_all(batch_, settings_, state(nullptr), told, stream);
}

#define OTCORE_FOR(T)                                                                                                 \
  template std::size_t solve_bytes(const Batch<T>&);                                                                  \
  template void solve(const Batch<T>&, const double*, const Settings&, double*, double*, void*, bool (*)(), Stream);  \
  template class Steps<T>;
OTCORE_FOR(float)
OTCORE_FOR(double)
#undef OTCORE_FOR

}  // namespace otcore::cuda
