import CUDABackend
import CUDASupport
import KVQuantization
import PagedCache

/// Runs one decode plan over a cache and brings the results back: the part that checks have in common.
struct DecodeRunner {
  let layout: MHALayout
  let queryHeadCount: Int
  var queryLength = 1
  var queryType = ActivationType.bf16
  var outputType = ActivationType.f32
  var splitting: PagedDecode.Splitting?
  var maximumBatch: Int?

  struct Output {
    /// [B * queryLength, Hq, D]
    let values: [Float]
    /// [B * queryLength, Hq]
    let logSumExp: [Float]
    /// Splits of the longest request.
    let splits: Int
  }

  var softmaxScale: Float { 1 / Float(layout.headDimension).squareRoot() }

  func run(
    queries: [Float], pool: borrowing DevicePagePool, tables: [[Int32]], lengths: [Int], scales: DecodeScales,
    bench: DeviceBench, launches: Int = 2
  ) throws -> Output {
    let splitting =
      splitting
      // Short pieces, so that the checks' lengths have many of them.
      ?? PagedDecode.Splitting(target: bench.context.device.multiprocessorCount / 4, minimumTokens: 512)
    let longest = lengths.max() ?? 1
    let plan = try PagedDecode(
      PagedDecode.Configuration(
        layout: layout, queryHeadCount: queryHeadCount, queryLength: queryLength, queryType: queryType,
        outputType: outputType, softmaxScale: softmaxScale, maximumBatch: maximumBatch ?? lengths.count,
        maximumContextLength: longest, splitting: splitting), library: bench.library, on: bench.stream)
    let rows = lengths.count * queryLength
    let width = queryHeadCount * layout.headDimension
    let deviceQueries = try DeviceBuffer<UInt8>.holding(queryType.bytes(queries), on: bench.stream)
    let tables = try DeviceTables(tables: tables, lengths: lengths, on: bench.stream)
    let output = try DecodeOutput(bench, rows: rows, width: width, heads: queryHeadCount, type: outputType)
    var call = PagedDecode.Call(
      queries: deviceQueries.address, output: output.values.address, cache: try pool.address(layer: 0),
      pageStride: pool.pageStride, pageTable: tables.pages.address, pageTableStride: tables.stride,
      contextLengths: tables.lengths.address, batch: lengths.count, scales: scales)
    call.logSumExp = output.sums.address
    // Twice: the second launch finds the workspace and the counters as the first left them.
    let found = try output.launched(launches) { try plan.run(call, on: bench.stream) }
    return Output(
      values: found.values, logSumExp: found.logSumExp, splits: splitting.count(contextLength: longest))
  }
}

/// Where a decode writes, with a row more than it may, to see that it stays as it was.
struct DecodeOutput: ~Copyable {
  let values: DeviceBuffer<UInt8>
  let sums: DeviceBuffer<Float>
  private let bench: DeviceBench
  private let rowBytes: Int
  private let heads: Int
  private let type: ActivationType

  init(_ bench: DeviceBench, rows: Int, width: Int, heads: Int, type: ActivationType) throws {
    let values = try DeviceBuffer<UInt8>(bench.context, count: (rows + 1) * width * type.byteCount)
    let sums = try DeviceBuffer<Float>(bench.context, count: (rows + 1) * heads)
    self.values = values
    self.sums = sums
    self.bench = bench
    self.heads = heads
    self.type = type
    rowBytes = width * type.byteCount
  }

  /// What `launch` writes, every time the same; it starts as NaN.
  func launched(_ times: Int, _ launch: () throws -> Void) throws -> (values: [Float], logSumExp: [Float]) {
    var last: (bytes: [UInt8], sums: [Float])?
    for _ in 0..<max(times, 1) {
      try values.fill(byte: 0xff, on: bench.stream)
      try sums.fill(byte: 0xff, on: bench.stream)
      try launch()
      let found = (bytes: try values.array(on: bench.stream), sums: try sums.array(on: bench.stream))
      if let last, last.bytes != found.bytes || last.sums.map(\.bitPattern) != found.sums.map(\.bitPattern) {
        throw CheckFailure("two launches of one call gave different bits")
      }
      last = found
    }
    guard let last else { return ([], []) }
    guard last.bytes.suffix(rowBytes).allSatisfy({ $0 == 0xff }),
      last.sums.suffix(heads).allSatisfy({ $0.bitPattern == .max })
    else { throw CheckFailure("the kernel wrote past its last row") }
    return (type.values(Array(last.bytes.dropLast(rowBytes))), Array(last.sums.dropLast(heads)))
  }
}

/// A finding that ends a case.
struct CheckFailure: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}
