import ArgumentParser
import CPUBackend

/// Measures how fast memory can be read.
struct BenchBandwidthCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bandwidth",
    abstract: "Measure the read bandwidth of memory and caches on the CPU.",
    discussion: "Sizes are read again and again on all threads, in pieces of 1 MiB; sizes take turns within a round.")

  @OptionGroup var threadsOption: ThreadsOption

  @Option(parsing: .upToNextOption, help: "Sizes in MiB.")
  var sizes = [1, 8, 1024]

  @Option(help: "Rounds.")
  var rounds = 15

  func validate() throws {
    guard rounds > 0 else { throw ValidationError("expected --rounds of at least 1, found \(rounds)") }
    guard let largest = sizes.max(), let smallest = sizes.min(), smallest > 0, largest <= 1 << 20 else {
      throw ValidationError("expected --sizes between 1 and 1048576 MiB")
    }
  }

  func run() throws {
    let workers = threadsOption.makeWorkers()
    let yardsticks = sizes.map { ReadYardstick(byteCount: $0 << 20) }
    for _ in 0..<rounds {
      // Small sizes are read often enough to be timed.
      for (size, yardstick) in zip(sizes, yardsticks) {
        for _ in 0..<max(1, 256 / size) { yardstick.measure(workers) }
      }
    }
    Console.write("read bandwidth on \(workers.threadCount) threads, best and median of \(rounds) rounds\n")
    for (size, yardstick) in zip(sizes, yardsticks) {
      let median = Double(yardstick.byteCount) / yardstick.samples.median
      Console.write(
        "\(String(size).leftPadded(to: 7)) MiB \((yardstick.bytesPerSecond / 1e9).decimals(1).leftPadded(to: 8)) GB/s"
          + " \((median / 1e9).decimals(1).leftPadded(to: 8)) GB/s\n")
    }
  }
}
