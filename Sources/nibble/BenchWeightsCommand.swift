import ArgumentParser
import CPUBackend
import Operators

/// Times matrix products with few rows of inputs: what decoding spends on weights.
struct BenchWeightsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "weights",
    abstract:
      "Time products of weights of every --weight-dtype with few rows of inputs, beside the memory's read bandwidth.",
    discussion: """
      Each type has a matrix of random weights of the same number of bytes, beyond the caches. Within a round the read bandwidth is \
      measured and types take turns. 'GB/s' counts the weights' bytes, scales included, best round and median; 'share' is of the read \
      bandwidth of the same run; 'ns' is the time of 1,000 weights.
      """)

  @Option(parsing: .upToNextOption, help: "Types of weights.")
  var weightDtypes = CPUWeightType.allCases.map(\.rawValue)

  @Option(help: "Inputs, a multiple of 128.")
  var width = 1024

  @Option(help: "Rows of inputs.")
  var rows = 1

  @Option(help: "MiB of weights of each type.")
  var size = 256

  @OptionGroup var threadsOption: ThreadsOption

  @Option(help: "Rounds.")
  var rounds = 15

  func validate() throws {
    for name in weightDtypes where CPUWeightType(rawValue: name) == nil {
      let known = CPUWeightType.allCases.map(\.rawValue).joined(separator: ", ")
      throw ValidationError("unknown weight dtype '\(name)'; expected \(known)")
    }
    guard width > 0, width % 128 == 0, width <= 1 << 16 else {
      throw ValidationError("expected --width to be a multiple of 128 up to 65536, found \(width)")
    }
    for (name, value, limit) in [
      ("--rows", rows, 1024), ("--size", size, 4096), ("--rounds", rounds, 1 << 20),
    ] where value < 1 || value > limit {
      throw ValidationError("expected \(name) to be between 1 and \(limit), found \(value)")
    }
    let least = (RandomProduct.leastOutputs * 4 * width - 1) >> 20 + 1
    guard size >= least else {
      throw ValidationError("expected --size of at least \(least) for this width, found \(size)")
    }
  }

  func run() throws {
    let workers = threadsOption.makeWorkers()
    let products = try weightDtypes.compactMap(CPUWeightType.init).map {
      try RandomProduct(type: $0, width: width, rows: rows, byteCount: size << 20, workers: workers)
    }
    var samples = products.map { _ in BenchSamples() }
    let yardstick = ReadYardstick(byteCount: size << 20)
    for product in products { product.run() }
    for _ in 0..<rounds {
      yardstick.measure(workers)
      for index in products.indices { samples[index].measure(products[index].run) }
    }
    let bandwidth = yardstick.bytesPerSecond
    Console.write(
      "\(size) MiB of weights, \(width) inputs, \(rows) rows; \(workers.threadCount) threads, \(products.first?.levelName ?? ""), "
        + "best of \(rounds) rounds; read bandwidth \((bandwidth / 1e9).decimals(1)) GB/s\n"
        + "weights      GB/s   median  share        ns\n")
    for (product, samples) in zip(products, samples) {
      let bytes = Double(product.byteCount)
      Console.write(
        product.type.rawValue.padded(to: 8) + (bytes / samples.best / 1e9).decimals(1).leftPadded(to: 9)
          + (bytes / samples.median / 1e9).decimals(1).leftPadded(to: 9)
          + ((100 * bytes / samples.best / bandwidth).decimals(0) + "%").leftPadded(to: 7)
          + (samples.best * 1e12 / Double(product.outputs * width)).decimals(2).leftPadded(to: 10) + "\n")
    }
  }
}
