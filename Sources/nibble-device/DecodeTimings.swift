import CUDABackend
import CUDASupport
import KVQuantization
import PagedCache

/// Decode attention at the sizes of docs/performance.md, checked in the same run.
///
/// A long context is a unit of 4,096 random tokens, repeated in pages of its own: attention over the whole then equals attention
/// over the unit, so that a million tokens can be checked against the textbook.
enum DecodeTimings {
  struct Load: Sendable {
    let queryHeadCount: Int
    let kvHeadCount: Int
    let batch: Int
    let contextLength: Int
    var isTimed = true

    var text: String {
      "decode Hq \(queryHeadCount), Hk \(kvHeadCount), D 128, \(batch) x \(contextLength.grouped)"
    }
    var name: String {
      "hq\(queryHeadCount)-hk\(kvHeadCount)-d128/\(batch)x\(contextLength)"
    }
  }

  static let unit = 4096
  private static let scales = DecodeScales(key: 0.0021, value: 0.0037)

  static func all(quick: Bool) -> [DeviceCase] {
    let loads =
      quick
      ? [
        Load(queryHeadCount: 64, kvHeadCount: 4, batch: 1, contextLength: 131_072),
        Load(queryHeadCount: 64, kvHeadCount: 4, batch: 1, contextLength: 1_048_576),
      ]
      : [
        // What a call costs by itself.
        Load(queryHeadCount: 64, kvHeadCount: 4, batch: 1, contextLength: 16),
        Load(queryHeadCount: 64, kvHeadCount: 4, batch: 1, contextLength: 4096),
        Load(queryHeadCount: 64, kvHeadCount: 4, batch: 1, contextLength: 8192),
        Load(queryHeadCount: 64, kvHeadCount: 4, batch: 1, contextLength: 32_768),
        Load(queryHeadCount: 64, kvHeadCount: 4, batch: 1, contextLength: 131_072),
        Load(queryHeadCount: 64, kvHeadCount: 4, batch: 1, contextLength: 1_048_576),
        Load(queryHeadCount: 64, kvHeadCount: 4, batch: 16, contextLength: 32_768),
        Load(queryHeadCount: 64, kvHeadCount: 4, batch: 64, contextLength: 8192),
        Load(queryHeadCount: 64, kvHeadCount: 4, batch: 256, contextLength: 1024),
        Load(queryHeadCount: 32, kvHeadCount: 8, batch: 1, contextLength: 131_072),
        Load(queryHeadCount: 32, kvHeadCount: 8, batch: 16, contextLength: 32_768),
        Load(queryHeadCount: 32, kvHeadCount: 8, batch: 64, contextLength: 8192),
      ]
    var cases: [DeviceCase] = []
    for load in loads {
      for recipe in quick ? [.nvfp4, .fp8E4M3, .bf16] : [.nvfp4, .fp4MXBlock16, .mxfp4, .fp8E4M3, .bf16] as [KVRecipe] {
        cases.append(timing(load, recipe))
      }
    }
    // More than 2^31 values: indices must have 64 bits.
    let large = Load(queryHeadCount: 32, kvHeadCount: 8, batch: 1, contextLength: 276 * unit, isTimed: false)
    for recipe in quick ? [KVRecipe.nvfp4] : [.nvfp4, .bf16] { cases.append(timing(large, recipe)) }
    return cases
  }

  private static func timing(_ load: Load, _ recipe: KVRecipe) -> DeviceCase {
    let name = "\(load.isTimed ? "time" : "check")/decode/\(load.name)/\(recipe.name)"
    return DeviceCase(name: name) {
      try MHALayout(kvHeadCount: load.kvHeadCount, headDimension: 128, pageSize: 64, recipeK: recipe, recipeV: recipe)
    } instances: {
      [PagedDecode.instance(layout: $0, queryRows: load.queryHeadCount / load.kvHeadCount)]
    } run: { layout, bench in
      try run(load, layout, seed: DeviceCase.seed(name), bench)
    }
  }

  private static func run(_ load: Load, _ layout: MHALayout, seed: UInt64, _ bench: DeviceBench) throws -> CaseResult {
    // A context shorter than the unit is its beginning.
    let cache = try CacheFixture(
      layout: layout, lengths: [unit], scales: scales, seed: seed, workers: bench.workers)
    let yardsticks = try bench.yardsticks()
    let bytes = load.batch * load.contextLength * layout.bytesPerToken
    // Caches that the level-2 cache could keep from call to call are laid out several times, and calls take turns.
    let sets = load.isTimed ? max(1, min(64, 4 * bench.context.device.l2Bytes / bytes)) : 1
    let pagesPerUnit = unit / layout.pageSize
    let unitsPerRequest = (load.contextLength + unit - 1) / unit
    let unitCount = sets * load.batch * unitsPerRequest
    var random = RandomNumbers(seed: seed)
    let pool = try DevicePagePool(
      bench.context, layout: layout, layerCount: 1, pageCount: unitCount * pagesPerUnit, scales: [scales])
    let records = cache.records()
    let slots = try pool.fill(
      withCopiesOf: cache.pageTables[0].prefix(pagesPerUnit).map { records[Int($0)] }, random: &random, on: bench.stream
    )
    let stride = unitsPerRequest * pagesPerUnit
    let pages = try DeviceBuffer<Int32>.holding(slots, on: bench.stream)
    let lengths = try DeviceBuffer<Int32>.holding(
      [Int32](repeating: Int32(load.contextLength), count: load.batch), on: bench.stream)

    let width = load.queryHeadCount * layout.headDimension
    let queries = random.normals(load.batch * width, scale: 1.5).map { ActivationType.bf16.rounded($0) }
    let deviceQueries = try DeviceBuffer<UInt8>.holding(ActivationType.bf16.bytes(queries), on: bench.stream)
    let output = try DeviceBuffer<UInt8>(bench.context, count: load.batch * width * 2)
    try output.fill(byte: 0xff, on: bench.stream)
    let standard = PagedDecode.Splitting(device: bench.context.device, kvHeadCount: load.kvHeadCount)
    let splitting = PagedDecode.Splitting(
      target: bench.options.splitTarget ?? standard.target,
      minimumTokens: bench.options.splitTokens ?? standard.minimumTokens)
    let softmaxScale = 1 / Float(layout.headDimension).squareRoot()
    let plan = try PagedDecode(
      PagedDecode.Configuration(
        layout: layout, queryHeadCount: load.queryHeadCount, softmaxScale: softmaxScale, maximumBatch: load.batch,
        maximumContextLength: load.contextLength, splitting: splitting), library: bench.library, on: bench.stream)
    let base = try pool.address(layer: 0)
    func call(_ set: Int) throws(CUDAError) -> PagedDecode.Call {
      PagedDecode.Call(
        queries: deviceQueries.address, output: output.address, cache: base, pageStride: pool.pageStride,
        pageTable: try pages.address(of: set * load.batch * stride), pageTableStride: stride,
        contextLengths: lengths.address, batch: load.batch, scales: scales)
    }

    // Right first, then fast. Of a large batch, the first eight requests.
    try plan.run(try call(sets - 1), on: bench.stream)
    let compared = min(load.batch, 8)
    let found = ActivationType.bf16.values(Array(try output.array(on: bench.stream).prefix(compared * width * 2)))
    let reference = try repeated(cache, count: compared, length: min(load.contextLength, unit)).reference(
      queries: Array(queries.prefix(compared * width)), queryHeadCount: load.queryHeadCount, softmaxScale: softmaxScale,
      workers: bench.workers)
    let error = relativeError(found, reference, row: layout.headDimension)
    var result = CaseResult(error, limit: DecodeChecks.limitBF16Output)
    result.line.add("values", 2 * load.batch * load.contextLength * load.kvHeadCount * layout.headDimension)
    guard load.isTimed else { return result }

    let calls = GraphTimer.calls(estimatedMicroseconds: 20 + Double(bytes) / yardsticks.read / 1e3)
    let time = try bench.timer.time(calls: calls, on: bench.stream) { stream, index throws(CUDAError) in
      try plan.run(try call(index % sets), on: stream)
    }
    let rate = Double(bytes) / time.median / 1e3
    result.line.add(time)
    result.line.add("cache_bytes", bytes)
    result.line.add("gb_per_s", rate, digits: 0)
    result.line.add("share_of_copy", rate / yardsticks.copy, digits: 3)
    result.line.add("share_of_read", rate / yardsticks.read, digits: 3)
    result.line.add("splits", splitting.count(contextLength: load.contextLength))
    result.line.add("split_tokens", splitting.minimumTokens)
    result.line.add("split_target", splitting.target)
    result.line.add("blocks", plan.shape.grid.x)
    result.line.add("threads", plan.shape.block.x)
    result.line.add("shared_bytes", plan.shape.sharedBytes)
    result.line.add("input_sets", sets)
    result.row = TimingRow(
      load: load.text, recipe: layout.recipeK, microseconds: time.median, gigabytesPerSecond: rate)
    return result
  }

  /// The unit, or its beginning, as a batch of requests over the same pages.
  private static func repeated(_ cache: CacheFixture, count: Int, length: Int) throws -> CacheFixture {
    CacheFixture(
      pool: cache.pool, layout: cache.layout, lengths: Array(repeating: length, count: count),
      pageTables: Array(repeating: cache.pageTables[0], count: count))
  }
}
