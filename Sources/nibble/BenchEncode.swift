import ArgumentParser
import CSIMD
import KVQuantization
import PagedCache

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Times the row encoders and decoders on one core.
struct BenchEncode: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "encode",
    abstract: "Time encoding, storing and decoding rows on one core, for every recipe.",
    discussion: """
      GB/s count each value as the two bytes of a BF16 input; the input is float32. 'encode' writes canonical rows, 'store' \
      encodes pages of 64 tokens into records, 'append' the same tokens one by one, as decoding does, 'decode' writes float32. 'copy' is memcpy of the same float32 rows, in the same run. \
      Figures are the best round, and the median in brackets; recipes take turns within a round.
      """)

  @Option(help: "Values in a row.")
  var dimension = 128

  @Option(help: "Rows; the default's float32 input is 2 MiB.")
  var rows = 4096

  @Option(help: "Rounds.")
  var rounds = 40

  @Flag(help: "Time every instruction-set level, not only the active one.")
  var allLevels = false

  func validate() throws {
    guard dimension > 0, dimension % 32 == 0, dimension <= 65_536 else {
      throw ValidationError("expected --dimension to be a positive multiple of 32, found \(dimension)")
    }
    guard rows > 0, rows % 16 == 0, rows <= (1 << 28) / dimension else {
      throw ValidationError("expected --rows to be a positive multiple of 16 within 2^28 values, found \(rows)")
    }
    guard rounds > 0 else { throw ValidationError("expected --rounds of at least 1, found \(rounds)") }
  }

  func run() throws {
    let rows = EncodeRows(count: rows, dimension: dimension)
    let levels = allLevels ? (0...nb_level_supported().rawValue).map { nb_level($0) } : [nb_level_active()]
    var timings = [Timing(name: "copy", body: rows.copy)]
    for level in levels {
      for recipe in KVRecipe.allCases {
        let name = "\(String(cString: nb_level_name(level))) \(recipe.name)"
        timings.append(Timing(name: "\(name) encode") { rows.encode(recipe, level) })
        timings.append(Timing(name: "\(name) decode") { rows.decode(recipe, level) })
        for (what, tokens) in [("store", EncodeRows.tokensInPage), ("append", 1)] {
          for (side, kind) in [("K", CacheRegionKind.key), ("V", .value)] {
            timings.append(
              Timing(name: "\(name) \(what) \(side)") { rows.store(recipe, level, kind: kind, tokensAtOnce: tokens) })
          }
        }
      }
    }
    for _ in 0..<rounds {
      for index in timings.indices { timings[index].samples.measure(timings[index].body) }
    }
    let values = Double(self.rows * dimension)
    let width = timings.map(\.name.count).max() ?? 0
    Console.write("\(self.rows) rows of \(dimension) values, \(rounds) rounds on one core\n")
    for timing in timings {
      let (best, median) = (timing.samples.best, timing.samples.median)
      let name = timing.name.padded(to: width)
      Console.write(
        "\(name)  \((2 * values / best / 1e9).decimals(2)) GB/s (median \((2 * values / median / 1e9).decimals(2))), "
          + "\((best / values * 1e9).decimals(3)) ns a value\n")
    }
  }
}

/// One thing to measure and what it took.
private struct Timing {
  let name: String
  let body: () -> Void
  var samples = BenchSamples()
}

/// Random rows and room for what becomes of them.
private final class EncodeRows {
  static let tokensInPage = 64

  private let count: Int
  private let dimension: Int
  private let input: UnsafeMutablePointer<Float>
  private let output: UnsafeMutablePointer<Float>
  private let codes: UnsafeMutablePointer<UInt8>
  private let scales: UnsafeMutablePointer<UInt8>
  private var statistics = EncodeStatistics()

  init(count: Int, dimension: Int) {
    self.count = count
    self.dimension = dimension
    // At cache lines, as an engine's activations are.
    input = UnsafeMutableRawPointer.allocate(byteCount: count * dimension * 4, alignment: 64)
      .bindMemory(to: Float.self, capacity: count * dimension)
    output = .allocate(capacity: count * dimension)
    // Room for the widest recipe, and for whole pages.
    let padded = (count + Self.tokensInPage) * dimension
    codes = .allocate(capacity: padded * 4)
    scales = .allocate(capacity: padded / 16)
    output.initialize(repeating: 0, count: count * dimension)
    codes.initialize(repeating: 0, count: padded * 4)
    scales.initialize(repeating: 0, count: padded / 16)
    for index in 0..<count * dimension {
      // Nearly normal: a sum of uniform numbers.
      input[index] = (0..<4).reduce(Float(0)) { sum, _ in sum + Float.random(in: -1...1) }
    }
  }

  deinit {
    input.deallocate()
    output.deallocate()
    codes.deallocate()
    scales.deallocate()
  }

  func copy() { memcpy(output, input, count * dimension * 4) }

  func encode(_ recipe: KVRecipe, _ level: nb_level) {
    let (codeBytes, scaleBytes) = (recipe.codeBytes(dimension: dimension), recipe.scaleBytes(dimension: dimension))
    for row in 0..<count {
      recipe.encode(
        input + row * dimension, dimension: dimension, decodeScale: 0.01, codes: codes + row * codeBytes,
        scales: scales + row * scaleBytes, statistics: &statistics, level: level)
    }
  }

  func decode(_ recipe: KVRecipe, _ level: nb_level) {
    let (codeBytes, scaleBytes) = (recipe.codeBytes(dimension: dimension), recipe.scaleBytes(dimension: dimension))
    for row in 0..<count {
      recipe.decode(
        codes: codes + row * codeBytes, scales: scales + row * scaleBytes, dimension: dimension, decodeScale: 0.01,
        into: output + row * dimension, level: level)
    }
  }

  /// Encodes into pages of 64 tokens, one region behind the other.
  /// - Parameter tokensAtOnce: a divisor of 64.
  func store(_ recipe: KVRecipe, _ level: nb_level, kind: CacheRegionKind, tokensAtOnce: Int) {
    let page = Self.tokensInPage
    let codeBytes = recipe.codeBytes(dimension: dimension) * page
    let scaleBytes = recipe.scaleBytes(dimension: dimension) * page
    var counts = nb_encode_statistics()
    for first in stride(from: 0, to: count, by: page) {
      var region = nb_region(
        recipe: recipe.kernelRecipe, kind: kind.rawValue, dimension: Int32(dimension),
        codes: codes + first / page * codeBytes, scales: scales + first / page * scaleBytes)
      for token in stride(from: 0, to: min(page, count - first), by: tokensAtOnce) {
        nb_region_store_rows(
          level, &region, Int32(token), Int32(min(tokensAtOnce, count - first - token)),
          input + (first + token) * dimension, Int64(dimension), 0.01, &counts)
      }
    }
  }
}
