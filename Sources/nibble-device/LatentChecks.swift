import CPUBackend
import CUDABackend
import CUDASupport
import KVQuantization
import PagedCache

/// Latent decode attention against the textbook over the same stored bytes.
enum LatentChecks {
  struct Setting: Sendable {
    var recipe = KVRecipe.nvfp4
    var ropeRecipe = KVRecipe.bf16
    var heads = 16
    var pageSize = 64
    var load = DecodeChecks.Load.edges
    var queryLength = 1
    var queryType = ActivationType.bf16
    var outputType = ActivationType.f32
    var scales = DecodeScales(key: 0.0021, value: 0.0037)
    var rowScale: Float = 1
    var sharedPages = 0

    func layout() throws(PagedCacheError) -> MLALayout {
      try MLALayout(
        latentDimension: CUDAAttention.latentDimension, ropeDimension: CUDAAttention.ropeDimension, pageSize: pageSize,
        recipeLatent: recipe, recipeRope: ropeRecipe)
    }
  }

  static func all(quick: Bool) -> [DeviceCase] {
    var settings: [(String, Setting)] = []
    func add(_ name: String, _ recipe: KVRecipe, _ change: (inout Setting) -> Void) {
      var setting = Setting()
      setting.recipe = recipe
      change(&setting)
      settings.append((name, setting))
    }
    // Every recipe with 16, 32 and 128 heads, rotary keys in BF16 or in the same recipe; page sizes take turns.
    var turn = 0
    for recipe in CUDAAttention.recipes {
      for heads in quick ? [16] : [16, 32, 128] {
        add("grid", recipe) {
          $0.heads = heads
          $0.pageSize = CUDAAttention.pageSizes[turn % 4]
          $0.ropeRecipe = quick || turn % 3 != 1 ? .bf16 : recipe
        }
        turn += 1
      }
    }
    for pageSize in quick ? [] : CUDAAttention.pageSizes {
      for heads in [1, 7, 64, 100] {
        add("heads", .nvfp4) {
          $0.heads = heads
          $0.pageSize = pageSize
          $0.load = .wide
        }
      }
    }
    for recipe in quick ? [KVRecipe.nvfp4] : [.nvfp4, .fp8E4M3, .bf16] {
      add("long", recipe) {
        $0.load = .long
        $0.heads = 128
      }
      for queryLength in quick ? [4] : [2, 3, 4, 8] {
        add("queries", recipe) {
          $0.queryLength = queryLength
          $0.heads = queryLength == 8 ? 128 : 16
        }
      }
    }
    for type in ActivationType.allCases {
      add("types", .nvfp4) {
        $0.queryType = type
        $0.outputType = type
      }
    }
    // Block scales that are subnormal or zero, and ones at their largest, 448.
    add("tiny", .nvfp4) {
      $0.scales = .one
      $0.rowScale = 0.003
    }
    add("huge", .nvfp4) {
      $0.scales = DecodeScales(key: 0x1p-12, value: 0x1p-12)
      $0.rowScale = 4
    }
    add("tiny", .mxfp4) {
      $0.rowScale = 0x1p-20
      $0.ropeRecipe = .mxfp4
    }
    add("shared", .nvfp4) { $0.sharedPages = 5 }
    var cases = settings.map { name, setting in checkAgainstReference(name, setting) }
    for recipe in quick ? [.nvfp4] : [KVRecipe.nvfp4, .fp8E4M3, .bf16, .mxfp4] {
      cases.append(checkBatchIndependence(recipe))
    }
    return cases
  }

  private static func checkAgainstReference(_ kind: String, _ setting: Setting) -> DeviceCase {
    let name = """
      check/latent/\(kind)/\(setting.recipe.name)-\(setting.ropeRecipe.name)/h\(setting.heads)/p\(setting.pageSize)/\
      q\(setting.queryLength)/\(setting.queryType.name)-\(setting.outputType.name)/\(setting.load.rawValue)
      """
    return DeviceCase(name: name) {
      try setting.layout()
    } instances: {
      [PagedLatentDecode.instance(layout: $0), PagedLatentDecode.mergeInstance]
    } run: { layout, bench in
      let seed = DeviceCase.seed(name)
      var random = RandomNumbers(seed: seed)
      let lengths = setting.load.lengths(pageSize: setting.pageSize, queryLength: setting.queryLength, &random)
      let cache = try LatentFixture(
        layout: layout, lengths: lengths, scales: setting.scales, sharedPages: setting.sharedPages, seed: seed,
        workers: bench.workers, rowScale: setting.rowScale)
      let runner = LatentRunner(setting, layout: layout)
      // Queries as spread as gives scores of a deviation of about 1.5, whatever the keys' scale.
      let queries = random.normals(
        lengths.count * setting.queryLength * setting.heads * cache.keyDimension,
        scale: min(1.5 / setting.rowScale, 1e4)
      ).map { setting.queryType.rounded($0) }
      let found = try runner.run(queries: queries, pool: try cache.upload(to: bench), cache: cache, bench: bench)
      let expected = cache.reference(
        queries: queries, queryHeadCount: setting.heads, queryLength: setting.queryLength,
        softmaxScale: runner.softmaxScale, workers: bench.workers)
      let error = relativeError(found, expected, row: layout.latentDimension)
      var result = CaseResult(error, limit: DecodeChecks.limit(setting.outputType))
      result.line.add("requests", lengths.count)
      return result
    }
  }

  /// The same request alone, in a batch and at another place in the batch gives the same bits.
  private static func checkBatchIndependence(_ recipe: KVRecipe) -> DeviceCase {
    let name = "check/latent/batch-independence/\(recipe.name)"
    var setting = Setting()
    setting.recipe = recipe
    setting.heads = 32
    setting.load = .long
    let used = setting
    return DeviceCase(name: name) {
      try used.layout()
    } instances: {
      [PagedLatentDecode.instance(layout: $0), PagedLatentDecode.mergeInstance]
    } run: { layout, bench in
      let seed = DeviceCase.seed(name)
      var random = RandomNumbers(seed: seed)
      let cache = try LatentFixture(
        layout: layout, lengths: [5000, 17, 2222, 900, 64, 128, 7001], scales: used.scales, seed: seed,
        workers: bench.workers)
      let (queryWidth, width) = (used.heads * cache.keyDimension, used.heads * layout.latentDimension)
      let count = cache.lengths.count
      let queries = random.normals(count * queryWidth, scale: 1.5).map { used.queryType.rounded($0) }
      let pool = try cache.upload(to: bench)
      let runner = LatentRunner(used, layout: layout)
      func bits(_ requests: [Int]) throws -> [UInt32] {
        let part = LatentFixture(
          pool: cache.pool, layout: layout, lengths: requests.map { cache.lengths[$0] },
          pageTables: requests.map { cache.pageTables[$0] })
        return try runner.run(
          queries: requests.flatMap { queries[$0 * queryWidth..<($0 + 1) * queryWidth] }, pool: pool, cache: part,
          bench: bench
        ).map(\.bitPattern)
      }
      let together = try bits(Array(0..<count))
      let reversed = try bits(Array((0..<count).reversed()))
      var failure: String?
      for request in 0..<count {
        let alone = try bits([request])[...]
        let place = count - 1 - request
        if alone != together[request * width..<(request + 1) * width]
          || alone != reversed[place * width..<(place + 1) * width]
        {
          failure =
            failure ?? "request \(request) of \(cache.lengths[request]) tokens has other bits alone than in a batch"
        }
      }
      var result = CaseResult(passed: failure == nil, failure: failure)
      result.line.add("requests", count)
      return result
    }
  }
}

/// Runs one plan of latent attention over a cache and brings the results back.
struct LatentRunner {
  let setting: LatentChecks.Setting
  let layout: MLALayout

  init(_ setting: LatentChecks.Setting, layout: MLALayout) {
    self.setting = setting
    self.layout = layout
  }

  var softmaxScale: Float { 1 / Float(layout.latentDimension + layout.ropeDimension).squareRoot() }

  /// [B * queryLength, Hq, 512]
  func run(
    queries: [Float], pool: borrowing DevicePagePool, cache: LatentFixture, bench: DeviceBench
  ) throws -> [Float] {
    let batch = cache.lengths.count
    let (queryLength, outputType) = (setting.queryLength, setting.outputType)
    let plan = try PagedLatentDecode(
      PagedLatentDecode.Configuration(
        layout: layout, queryHeadCount: setting.heads, queryLength: queryLength, queryType: setting.queryType,
        outputType: outputType, softmaxScale: softmaxScale, maximumBatch: batch,
        maximumContextLength: cache.lengths.max() ?? 1,
        // Short pieces, so that the checks' lengths have many of them.
        splitting: setting.load.splitting ?? .init(target: 33, minimumTokens: 256)),
      library: bench.library, on: bench.stream)
    let rows = batch * queryLength
    let width = setting.heads * layout.latentDimension
    let deviceQueries = try DeviceBuffer<UInt8>.holding(setting.queryType.bytes(queries), on: bench.stream)
    let tables = try DeviceTables(tables: cache.pageTables, lengths: cache.lengths, on: bench.stream)
    let output = try DecodeOutput(bench, rows: rows, width: width, heads: setting.heads, type: outputType)
    var call = PagedDecode.Call(
      queries: deviceQueries.address, output: output.values.address, cache: try pool.address(layer: 0),
      pageStride: pool.pageStride, pageTable: tables.pages.address, pageTableStride: tables.stride,
      contextLengths: tables.lengths.address, batch: batch, scales: setting.scales)
    call.logSumExp = output.sums.address
    let found = try output.launched(2) { try plan.run(call, on: bench.stream) }
    guard found.logSumExp.allSatisfy(\.isFinite) else { throw CheckFailure("a log-sum-exp is missing or not finite") }
    try checkSums(found.logSumExp, queries: queries, cache: cache)
    return found.values
  }

  /// Log-sum-exp of each request's last query, last head, in double precision.
  private func checkSums(_ found: [Float], queries: [Float], cache: LatentFixture) throws {
    for (request, length) in cache.lengths.enumerated() where length <= 1100 {
      let row = (request + 1) * setting.queryLength * setting.heads - 1
      let query = queries[row * cache.keyDimension..<(row + 1) * cache.keyDimension]
      let pages = cache.pageTables[request][...]
      let (latents, ropes) = (
        RowReader(pool: cache.pool, layer: 0, region: cache.pool.regions[0]).rows(0..<length, pages: pages),
        RowReader(pool: cache.pool, layer: 0, region: cache.pool.regions[1]).rows(0..<length, pages: pages)
      )
      let (latent, rope) = (layout.latentDimension, layout.ropeDimension)
      let scores = (0..<length).map { token in
        (zip(query, latents[token * latent..<(token + 1) * latent]).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
          + zip(query.dropFirst(latent), ropes[token * rope..<(token + 1) * rope])
          .reduce(0.0) { $0 + Double($1.0) * Double($1.1) }) * Double(softmaxScale)
      }
      let expected = logSumExp(scores)
      if abs(Double(found[row]) - expected) > 3e-3 {
        throw CheckFailure("log-sum-exp of row \(row) is \(found[row]), expected \(expected)")
      }
    }
  }
}
