import ArgumentParser
import CPUBackend

/// How many threads compute.
struct ThreadsOption: ParsableArguments {
  @Option(help: "Worker threads (default: one per processor).")
  var threads: Int?

  func validate() throws {
    if let threads, !(1...1024).contains(threads) {
      throw ValidationError("expected --threads from 1 to 1024, found \(threads)")
    }
  }

  func makeWorkers() -> WorkerPool { WorkerPool(threadCount: threads ?? WorkerPool.availableProcessorCount) }
}
