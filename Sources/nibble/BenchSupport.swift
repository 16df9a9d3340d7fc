import CPUBackend
import CSIMD

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Seconds that rounds of one thing took.
struct BenchSamples {
  private(set) var seconds: [Double] = []

  mutating func measure(_ body: () -> Void) {
    let start = Self.now()
    body()
    seconds.append(Self.now() - start)
  }

  var best: Double { seconds.min() ?? 0 }
  var median: Double { seconds.sorted()[seconds.count / 2] }

  private static func now() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
  }
}

/// Reads memory on all workers: what kernels that are bound by memory are measured against.
final class ReadYardstick {
  let byteCount: Int
  private let memory: UnsafeMutableRawPointer
  private(set) var samples = BenchSamples()

  /// - Parameter byteCount: rounded up to MiB; should be several times the last-level cache.
  init(byteCount: Int) {
    self.byteCount = (byteCount + (1 << 20) - 1) & ~((1 << 20) - 1)
    memory = .allocate(byteCount: self.byteCount, alignment: 1 << 21)
    #if os(Linux)
      madvise(memory, self.byteCount, Int32(MADV_HUGEPAGE))
    #endif
    memset(memory, 0x5A, self.byteCount)
  }

  deinit { memory.deallocate() }

  func measure(_ workers: WorkerPool) {
    nonisolated(unsafe) let memory = memory
    samples.measure {
      workers.run(byteCount >> 20) { piece, _ in _ = nb_read_memory(memory + piece << 20, 1 << 20) }
    }
  }

  /// Bytes per second, best round.
  var bytesPerSecond: Double { Double(byteCount) / samples.best }
}
