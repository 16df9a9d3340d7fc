import CUDABackend
import CUDASupport
import KVQuantization
import PagedCache

/// Store and dequantise beside a copy of the bytes that they move.
enum StoreTimings {
  static let rows = 65_536
  private static let scales = DecodeScales(key: 0.0021, value: 0.0037)

  static func all(quick: Bool) -> [DeviceCase] {
    let recipes: [KVRecipe] = quick ? [.nvfp4, .fp8E4M3, .bf16] : CUDAAttention.recipes
    return recipes.flatMap { recipe in
      [time("store", recipe) { try store($0, $1, $2) }, time("dequantize", recipe) { try dequantize($0, $1, $2) }]
    }
  }

  private static func time(
    _ what: String, _ recipe: KVRecipe, _ body: @escaping @Sendable (MHALayout, UInt64, DeviceBench) throws -> Timing
  ) -> DeviceCase {
    let name = "time/\(what)/hk8-d128/\(rows)/\(recipe.name)"
    return DeviceCase(name: name) {
      try MHALayout(kvHeadCount: 8, headDimension: 128, pageSize: 64, recipeK: recipe, recipeV: recipe)
    } instances: {
      [what == "store" ? PagedStore.instance(layout: $0, rowType: .bf16) : PagedDequantize.instance(layout: $0)]
    } run: { layout, bench in
      let yardsticks = try bench.yardsticks()
      let time = try body(layout, DeviceCase.seed(name), bench)
      // Dense BF16 rows on one side, records on the other.
      let bytes = rows * (layout.kvHeadCount * layout.headDimension * 4 + layout.bytesPerToken)
      let rate = Double(bytes) / time.median / 1e3
      var result = CaseResult(passed: true)
      result.line.add(time)
      result.line.add("bytes", bytes)
      result.line.add("gb_per_s", rate, digits: 0)
      result.line.add("times_of_copy", yardsticks.copy / rate, digits: 2)
      result.row = TimingRow(
        load: "\(what) \(rows.grouped) rows, Hk 8, D 128", recipe: recipe, microseconds: time.median,
        gigabytesPerSecond: rate)
      return result
    }
  }

  private static func store(_ layout: MHALayout, _ seed: UInt64, _ bench: DeviceBench) throws -> Timing {
    var random = RandomNumbers(seed: seed)
    let width = layout.kvHeadCount * layout.headDimension
    let pool = try DevicePagePool(
      bench.context, layout: layout, layerCount: 1, pageCount: rows / layout.pageSize, scales: [scales])
    let input = try randomRows(2 * width, &random, bench)
    let slots = try scatteredSlots(pageSize: layout.pageSize, &random, bench)
    let store = try PagedStore(layout: layout, rowType: .bf16, library: bench.library)
    let call = PagedStore.Call(
      keys: input.address, values: try input.address(of: rows * width * 2), slots: slots.address,
      cache: try pool.address(layer: 0), pageStride: pool.pageStride, rows: rows, scales: scales)
    return try bench.timer.time(calls: 8, on: bench.stream) { stream, _ throws(CUDAError) in
      try store.run(call, on: stream)
    }
  }

  private static func dequantize(_ layout: MHALayout, _ seed: UInt64, _ bench: DeviceBench) throws -> Timing {
    var random = RandomNumbers(seed: seed)
    let width = layout.kvHeadCount * layout.headDimension
    let cache = try CacheFixture(
      layout: layout, lengths: [2048], scales: scales, seed: seed, workers: bench.workers)
    let pageCount = rows / layout.pageSize
    let pool = try DevicePagePool(
      bench.context, layout: layout, layerCount: 1, pageCount: pageCount, scales: [scales])
    let records = cache.records()
    for page in 0..<pageCount {
      if page < 32 {
        try pool.upload(records[page], toPage: page, on: bench.stream)
      } else {
        try pool.copyPage(page % 32, to: page, on: bench.stream)
      }
    }
    let output = try DeviceBuffer<UInt8>(bench.context, count: rows * width * 4)
    let pages = try DeviceBuffer<Int32>.holding(
      Array(Int32(0)..<Int32(pageCount)).shuffled(using: &random), on: bench.stream)
    let dequantize = try PagedDequantize(layout: layout, outputType: .bf16, library: bench.library)
    let call = PagedDequantize.Call(
      keys: output.address, values: try output.address(of: rows * width * 2), cache: try pool.address(layer: 0),
      pageStride: pool.pageStride, pageTable: pages.address, tokens: 0..<rows, scales: scales)
    return try bench.timer.time(calls: 8, on: bench.stream) { stream, _ throws(CUDAError) in
      try dequantize.run(call, on: stream)
    }
  }

  /// A slot for every row as a prefill chunk writes them: tokens in order, pages in none.
  static func scatteredSlots(
    pageSize: Int, _ random: inout RandomNumbers, _ bench: DeviceBench
  ) throws -> DeviceBuffer<Int32> {
    let pages = Array(0..<rows / pageSize).shuffled(using: &random)
    return try DeviceBuffer<Int32>.holding(
      (0..<rows).map { Int32(pages[$0 / pageSize] * pageSize + $0 % pageSize) }, on: bench.stream)
  }

  /// `width` BF16 values for every row: a random piece, repeated.
  static func randomRows(
    _ width: Int, _ random: inout RandomNumbers, _ bench: DeviceBench
  ) throws -> DeviceBuffer<UInt8> {
    let piece = ActivationType.bf16.bytes(random.normals(1024 * width))
    let buffer = try DeviceBuffer<UInt8>(bench.context, count: rows * width * 2)
    let source = try DeviceBuffer<UInt8>.holding(piece, on: bench.stream)
    for start in stride(from: 0, to: buffer.count, by: piece.count) {
      try buffer.copy(0..<piece.count, of: source, at: start, on: bench.stream)
    }
    try bench.stream.synchronize()
    return buffer
  }
}
