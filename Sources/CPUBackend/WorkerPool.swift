import CSIMD

/// `nb_workers_run` for a closure, which allocates nothing: a step has dozens of jobs.
@_silgen_name("nb_workers_run_closure")
private func runClosure(_ workers: OpaquePointer, _ count: Int32, _ body: (Int, Int) -> Void)

/// Threads that compute the pieces of a step. They spin shortly for the next job, then park; pieces are handed out dynamically.
///
/// What a piece computes must not depend on which worker runs it, so that results don't depend on the thread count.
public final class WorkerPool: @unchecked Sendable {
  let workers: OpaquePointer

  /// Threads that `run` uses, its caller included. Smaller than asked for if the system refused threads.
  public let threadCount: Int

  /// - Parameter threadCount: at least 1; smaller values mean 1.
  public init(threadCount: Int) {
    guard let workers = nb_workers_create(Int32(clamping: max(1, min(threadCount, 1024)))) else {
      preconditionFailure("out of memory for the worker pool")
    }
    self.workers = workers
    self.threadCount = Int(nb_workers_thread_count(workers))
  }

  deinit { nb_workers_destroy(workers) }

  /// Calls `body` once for each piece of `0..<count` and returns when all are done.
  ///
  /// `worker` is below `threadCount`, and pieces that run at the same time have different ones, so it can index scratch
  /// memory. A call from inside a piece runs its pieces on the calling thread alone.
  public func run(_ count: Int, _ body: (_ piece: Int, _ worker: Int) -> Void) {
    runClosure(workers, Int32(clamping: count), body)
  }

  /// The processors this process may run on.
  public static var availableProcessorCount: Int { Int(nb_processor_count()) }
}
