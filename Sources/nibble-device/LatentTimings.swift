import CUDABackend
import CUDASupport
import KVQuantization
import PagedCache

/// Latent decode attention at R1's geometry, checked in the same run, and its store. Long contexts repeat a unit, as `DecodeTimings`.
enum LatentTimings {
  struct Load: Sendable {
    let heads: Int
    let batch: Int
    let contextLength: Int
    var isTimed = true

    var text: String { "latent decode, \(heads) heads, \(batch) x \(contextLength.grouped)" }
    var name: String { "h\(heads)/\(batch)x\(contextLength)" }
  }

  private static let unit = 2048
  private static let scales = DecodeScales(key: 0.0021, value: 0.0037)
  private static let rows = StoreTimings.rows

  static func all(quick: Bool) -> [DeviceCase] {
    var cases: [DeviceCase] = []
    for heads in [128, 16] {
      for (batch, length) in quick ? [(1, 131_072)] : [(1, 131_072), (16, 8192), (64, 4096)] {
        for recipe in quick
          ? [.nvfp4, .fp8E4M3, .bf16] : [.nvfp4, .fp4MXBlock16, .mxfp4, .fp8E4M3, .bf16] as [KVRecipe]
        {
          cases.append(timing(Load(heads: heads, batch: batch, contextLength: length), recipe))
        }
      }
    }
    // More than 2^31 values: indices must have 64 bits.
    let large = Load(heads: 16, batch: 1, contextLength: 1828 * unit, isTimed: false)
    for recipe in quick ? [KVRecipe.nvfp4] : [.nvfp4, .bf16] { cases.append(timing(large, recipe)) }
    return cases + (quick ? [.nvfp4] : CUDAAttention.recipes).map { storeTiming($0) }
  }

  private static func layout(_ recipe: KVRecipe) throws(PagedCacheError) -> MLALayout {
    var setting = LatentChecks.Setting()
    setting.recipe = recipe
    return try setting.layout()
  }

  private static func timing(_ load: Load, _ recipe: KVRecipe) -> DeviceCase {
    let name = "\(load.isTimed ? "time" : "check")/latent/\(load.name)/\(recipe.name)"
    return DeviceCase(name: name) {
      try layout(recipe)
    } instances: {
      [PagedLatentDecode.instance(layout: $0), PagedLatentDecode.mergeInstance]
    } run: { layout, bench in
      try run(load, layout, seed: DeviceCase.seed(name), bench)
    }
  }

  private static func run(_ load: Load, _ layout: MLALayout, seed: UInt64, _ bench: DeviceBench) throws -> CaseResult {
    let cache = try LatentFixture(
      layout: layout, lengths: [unit], scales: scales, seed: seed, workers: bench.workers)
    let yardsticks = try bench.yardsticks()
    let bytes = load.batch * load.contextLength * layout.bytesPerToken
    // Caches that the level-2 cache could keep from call to call are laid out several times, and calls take turns.
    let sets = load.isTimed ? max(1, min(64, 4 * bench.context.device.l2Bytes / bytes)) : 1
    let pagesPerUnit = unit / layout.pageSize
    let stride = load.contextLength / unit * pagesPerUnit
    let pageCount = sets * load.batch * stride
    var random = RandomNumbers(seed: seed)
    let pool = try DevicePagePool(
      bench.context, layout: .mla(layout), layerCount: 1, pageCount: pageCount, scales: [scales])
    let records = cache.records()
    let slots = try pool.fill(
      withCopiesOf: cache.pageTables[0].prefix(pagesPerUnit).map { records[Int($0)] }, random: &random, on: bench.stream
    )
    let pages = try DeviceBuffer<Int32>.holding(slots, on: bench.stream)
    let lengths = try DeviceBuffer<Int32>.holding(
      [Int32](repeating: Int32(load.contextLength), count: load.batch), on: bench.stream)
    let (queryWidth, width) = (load.heads * cache.keyDimension, load.heads * layout.latentDimension)
    let queries = random.normals(load.batch * queryWidth, scale: 1.5).map { ActivationType.bf16.rounded($0) }
    let deviceQueries = try DeviceBuffer<UInt8>.holding(ActivationType.bf16.bytes(queries), on: bench.stream)
    let output = try DeviceBuffer<UInt8>(bench.context, count: load.batch * width * 2)
    try output.fill(byte: 0xff, on: bench.stream)
    let standard = PagedDecode.Splitting(device: bench.context.device, latentHeadCount: load.heads)
    let splitting = PagedDecode.Splitting(
      target: bench.options.splitTarget ?? standard.target,
      minimumTokens: bench.options.splitTokens ?? standard.minimumTokens)
    let softmaxScale = 1 / Float(cache.keyDimension).squareRoot()
    let plan = try PagedLatentDecode(
      PagedLatentDecode.Configuration(
        layout: layout, queryHeadCount: load.heads, softmaxScale: softmaxScale, maximumBatch: load.batch,
        maximumContextLength: load.contextLength, splitting: splitting), library: bench.library, on: bench.stream)
    let base = try pool.address(layer: 0)
    func call(_ set: Int) throws(CUDAError) -> PagedDecode.Call {
      PagedDecode.Call(
        queries: deviceQueries.address, output: output.address, cache: base, pageStride: pool.pageStride,
        pageTable: try pages.address(of: set * load.batch * stride), pageTableStride: stride,
        contextLengths: lengths.address, batch: load.batch, scales: scales)
    }

    // Right first, then fast. Of a batch, the first two requests.
    try plan.run(try call(sets - 1), on: bench.stream)
    let compared = min(load.batch, 2)
    let found = ActivationType.bf16.values(Array(try output.array(on: bench.stream).prefix(compared * width * 2)))
    let reference = LatentFixture(
      pool: cache.pool, layout: layout, lengths: Array(repeating: unit, count: compared),
      pageTables: Array(repeating: cache.pageTables[0], count: compared)
    ).reference(
      queries: Array(queries.prefix(compared * queryWidth)), queryHeadCount: load.heads, softmaxScale: softmaxScale,
      workers: bench.workers)
    let error = relativeError(found, reference, row: layout.latentDimension)
    var result = CaseResult(error, limit: DecodeChecks.limitBF16Output)
    result.line.add("values", load.batch * load.contextLength * cache.keyDimension)
    guard load.isTimed else { return result }

    // Scores over 576 values, outputs of 512: a multiplication and an addition each.
    let operations = 2 * load.batch * load.contextLength * load.heads * (cache.keyDimension + layout.latentDimension)
    let calls = GraphTimer.calls(estimatedMicroseconds: 20 + Double(operations) / 4e8)
    let time = try bench.timer.time(calls: calls, on: bench.stream) { stream, index throws(CUDAError) in
      try plan.run(try call(index % sets), on: stream)
    }
    let rate = Double(bytes) / time.median / 1e3
    let teraflops = Double(operations) / time.median / 1e6
    result.line.add(time)
    result.line.add("cache_bytes", bytes)
    result.line.add("gb_per_s", rate, digits: 0)
    result.line.add("share_of_read", rate / yardsticks.read, digits: 3)
    result.line.add("tflop_per_s", teraflops, digits: 0)
    result.line.add("splits", splitting.latentCount(contextLength: load.contextLength))
    result.line.add("blocks", plan.shape.grid.x)
    result.line.add("shared_bytes", plan.shape.sharedBytes)
    result.line.add("input_sets", sets)
    result.row = TimingRow(
      load: load.text, recipe: layout.recipeLatent, microseconds: time.median, gigabytesPerSecond: rate,
      teraflops: teraflops)
    return result
  }

  private static func storeTiming(_ recipe: KVRecipe) -> DeviceCase {
    let name = "time/latent-store/\(rows)/\(recipe.name)"
    return DeviceCase(name: name) {
      try layout(recipe)
    } instances: {
      [PagedLatentStore.instance(layout: $0, rowType: .bf16)]
    } run: { layout, bench in
      let yardsticks = try bench.yardsticks()
      var random = RandomNumbers(seed: DeviceCase.seed(name))
      let width = layout.latentDimension + layout.ropeDimension
      let pool = try DevicePagePool(
        bench.context, layout: .mla(layout), layerCount: 1, pageCount: rows / layout.pageSize, scales: [scales])
      let input = try StoreTimings.randomRows(width, &random, bench)
      let slots = try StoreTimings.scatteredSlots(pageSize: layout.pageSize, &random, bench)
      let store = try PagedLatentStore(layout: layout, rowType: .bf16, library: bench.library)
      let call = PagedStore.Call(
        keys: input.address, values: try input.address(of: rows * layout.latentDimension * 2), slots: slots.address,
        cache: try pool.address(layer: 0), pageStride: pool.pageStride, rows: rows, scales: scales)
      let time = try bench.timer.time(calls: 8, on: bench.stream) { stream, _ throws(CUDAError) in
        try store.run(call, on: stream)
      }
      let bytes = rows * (width * 2 + layout.bytesPerToken)
      let rate = Double(bytes) / time.median / 1e3
      var result = CaseResult(passed: true)
      result.line.add(time)
      result.line.add("bytes", bytes)
      result.line.add("gb_per_s", rate, digits: 0)
      result.line.add("times_of_copy", yardsticks.copy / rate, digits: 2)
      result.row = TimingRow(
        load: "latent store \(rows.grouped) rows", recipe: recipe, microseconds: time.median, gigabytesPerSecond: rate)
      return result
    }
  }
}
