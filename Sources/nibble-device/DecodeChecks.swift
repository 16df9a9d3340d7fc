import CPUBackend
import CUDABackend
import CUDASupport
import KVQuantization
import PagedCache

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Decode attention against the textbook over the same stored bytes.
enum DecodeChecks {
  /// Relative L2 error allowed for BF16 queries, over all rows; a BF16 output adds its own rounding (2^-9 at most a value).
  static let limit = 2e-3
  static let limitBF16Output = 3e-3
  static func limit(_ outputType: ActivationType) -> Double { outputType == .bf16 ? limitBF16Output : limit }

  /// What a check varies.
  struct Setting: Sendable {
    var recipeK = KVRecipe.nvfp4
    var recipeV = KVRecipe.nvfp4
    var dimension = 128
    var heads = 2
    var group = 4
    var pageSize = 64
    var load = Load.edges
    var queryLength = 1
    var queryType = ActivationType.bf16
    var outputType = ActivationType.f32
    var scales = DecodeScales(key: 0.0021, value: 0.0037)
    var rowScale: Float = 1
    var sharedPages = 0

    init(_ recipe: KVRecipe = .nvfp4) {
      recipeK = recipe
      recipeV = recipe
    }
  }

  /// Lengths of the requests of a batch.
  enum Load: String, Sendable {
    /// Around pages, tiles and splits.
    case edges
    /// 64 requests of any length up to 400.
    case wide
    /// Few, up to 9,000 tokens.
    case long
    /// One request.
    case single

    func lengths(pageSize: Int, queryLength: Int, _ random: inout RandomNumbers) -> [Int] {
      let lengths: [Int]
      switch self {
      case .edges:
        lengths = [
          1, 2, 15, 16, 17, 31, pageSize - 1, pageSize, pageSize + 1, 127, 128, 129, 255, 257, 511, 512, 513, 640, 1023,
          1025,
          1537, 2049,
        ]
      case .wide: lengths = (0..<64).map { _ in Int(random.next() % 400) + 1 }
      case .long: lengths = [9000, 1, 4097, 8191, 300]
      case .single: lengths = [3333]
      }
      return lengths.map { max($0, queryLength) }
    }

    /// Few splits, so that they differ in length between requests.
    var splitting: PagedDecode.Splitting? { self == .long ? .init(target: 5, minimumTokens: 128) : nil }
  }

  static func all(quick: Bool) -> [DeviceCase] {
    var settings: [(String, Setting)] = []
    func add(_ name: String, _ recipe: KVRecipe, _ change: (inout Setting) -> Void) {
      var setting = Setting(recipe)
      change(&setting)
      settings.append((name, setting))
    }
    // Every recipe at every head dimension, through both row tiles; page sizes and groups take turns.
    let groups = [1, 12, 2, 16, 4, 9, 8, 13, 3, 10, 7, 15, 5, 11, 6, 14]
    var turn = 0
    for recipe in CUDAAttention.recipes {
      for dimension in quick ? [128] : CUDAAttention.headDimensions {
        for wide in [false, true] {
          let options = groups.filter { ($0 > 8) == wide }
          add("grid", recipe) {
            $0.dimension = dimension
            $0.group = quick ? (wide ? 16 : 4) : options[turn % options.count]
            $0.pageSize = CUDAAttention.pageSizes[turn / 2 % 4]
          }
          turn += 1
        }
      }
    }
    // Every group at every page size.
    for group in quick ? [1, 8] : Array(CUDAAttention.groupSizes) {
      for pageSize in quick ? [16] : CUDAAttention.pageSizes {
        add("group", .nvfp4) {
          $0.group = group
          $0.pageSize = pageSize
          $0.heads = 1 + group % 3
          $0.load = .wide
        }
      }
    }
    for recipe in [KVRecipe.nvfp4, .fp8E4M3, .bf16] {
      add("long", recipe) {
        $0.load = .long
        $0.group = 16
        $0.heads = 4
      }
      for queryLength in quick ? [4] : Array(2...8) {
        add("queries", recipe) {
          $0.queryLength = queryLength
          $0.group = queryLength == 8 ? 16 : 4
        }
      }
    }
    for (recipeK, recipeV) in [(KVRecipe.nvfp4, KVRecipe.fp8E4M3), (.bf16, .nvfp4), (.fp8E4M3, .mxfp4)] {
      add("mixed", recipeK) { $0.recipeV = recipeV }
    }
    for type in ActivationType.allCases {
      add("types", .nvfp4) {
        $0.queryType = type
        $0.outputType = type
      }
    }
    // Block scales that are subnormal or zero (values far below the decode scale), and ones at their largest, 448.
    add("tiny", .nvfp4) {
      $0.scales = .one
      $0.rowScale = 0.003
    }
    add("huge", .nvfp4) {
      $0.scales = DecodeScales(key: 0x1p-12, value: 0x1p-12)
      $0.rowScale = 4
    }
    add("tiny", .mxfp4) { $0.rowScale = 0x1p-20 }
    add("tiny", .fp4MXBlock16) { $0.rowScale = 0x1p-20 }
    add("shared", .nvfp4) { $0.sharedPages = 5 }
    var cases = settings.map { name, setting in checkAgainstReference(name, setting) }
    for recipe in quick ? [.nvfp4] : [KVRecipe.nvfp4, .fp8E4M3, .bf16, .mxfp4] {
      cases.append(checkBatchIndependence(Setting(recipe)))
    }
    for (recipe, dimension) in quick ? [] : [(KVRecipe.nvfp4, 128), (.nvfp4, 256), (.bf16, 256), (.fp8E4M3, 192)] {
      var setting = Setting(recipe)
      setting.dimension = dimension
      setting.group = 16
      cases.append(checkBatchIndependence(setting))
    }
    return cases
  }

  private static func layout(_ setting: Setting) throws(PagedCacheError) -> MHALayout {
    try MHALayout(
      kvHeadCount: setting.heads, headDimension: setting.dimension, pageSize: setting.pageSize,
      recipeK: setting.recipeK, recipeV: setting.recipeV)
  }

  private static func name(_ kind: String, _ setting: Setting) -> String {
    """
    check/decode/\(kind)/\(setting.recipeK.name)-\(setting.recipeV.name)/d\(setting.dimension)/hk\(setting.heads)\
    g\(setting.group)/p\(setting.pageSize)/q\(setting.queryLength)/\(setting.queryType.name)-\(setting.outputType.name)/\
    \(setting.load.rawValue)
    """
  }

  private static func checkAgainstReference(_ kind: String, _ setting: Setting) -> DeviceCase {
    let name = name(kind, setting)
    return DeviceCase(name: name) {
      try layout(setting)
    } instances: {
      [PagedDecode.instance(layout: $0, queryRows: setting.group * setting.queryLength)]
    } run: { layout, bench in
      let seed = DeviceCase.seed(name)
      var random = RandomNumbers(seed: seed)
      let lengths = setting.load.lengths(pageSize: setting.pageSize, queryLength: setting.queryLength, &random)
      let cache = try CacheFixture(
        layout: layout, lengths: lengths, scales: setting.scales, sharedPages: setting.sharedPages, seed: seed,
        workers: bench.workers
      ) { _ in setting.rowScale }
      let heads = setting.heads * setting.group
      let runner = DecodeRunner(
        layout: layout, queryHeadCount: heads, queryLength: setting.queryLength, queryType: setting.queryType,
        outputType: setting.outputType, splitting: setting.load.splitting)
      // Queries as spread as gives scores of a deviation of about 1.5, whatever the keys' scale.
      let spread = min(1.5 / setting.rowScale, 1e4)
      let queries = random.normals(lengths.count * setting.queryLength * heads * setting.dimension, scale: spread)
        .map { setting.queryType.rounded($0) }
      let pool = try cache.upload(to: bench)
      let found = try runner.run(
        queries: queries, pool: pool, tables: cache.pageTables, lengths: lengths, scales: setting.scales, bench: bench)
      let expected = cache.reference(
        queries: queries, queryHeadCount: heads, queryLength: setting.queryLength, softmaxScale: runner.softmaxScale,
        workers: bench.workers)
      let error = relativeError(found.values, expected, row: setting.dimension)
      let sums = logSumExpError(found.logSumExp, cache, queries, setting, runner)
      var result = CaseResult(error, limit: limit(setting.outputType))
      if result.passed && sums > 2e-3 {
        result.passed = false
        result.failure = "log-sum-exp is off by \(sums.scientific), expected at most 2e-3"
      }
      result.line.addScientific("log_sum_exp_error", sums)
      result.line.add("requests", lengths.count)
      result.line.add("splits", found.splits)
      return result
    }
  }

  /// The greatest difference of log-sum-exp over the requests' first heads.
  private static func logSumExpError(
    _ found: [Float], _ cache: CacheFixture, _ queries: [Float], _ setting: Setting, _ runner: DecodeRunner
  ) -> Double {
    let heads = runner.queryHeadCount
    var worst = 0.0
    for (request, length) in cache.lengths.enumerated() {
      let keys = RowReader(pool: cache.pool, layer: 0, region: cache.layout.regions[0])
        .rows(0..<length, pages: cache.pageTables[request][...])
      let row = (request + 1) * setting.queryLength - 1
      let query = queries[(row * heads) * setting.dimension..<(row * heads + 1) * setting.dimension]
      let scores = (0..<length).map { token in
        zip(query, keys[token * setting.dimension..<(token + 1) * setting.dimension])
          .reduce(0.0) { $0 + Double($1.0) * Double($1.1) } * Double(runner.softmaxScale)
      }
      let difference = abs(Double(found[row * heads]) - logSumExp(scores))
      worst = difference.isFinite ? max(worst, difference) : .infinity
    }
    return worst
  }

  /// The same request alone, in a batch, elsewhere in memory, at another place in the batch, and in a batch that gives each team many
  /// splits, gives the same bits.
  private static func checkBatchIndependence(_ setting: Setting) -> DeviceCase {
    let name = "check/decode/batch-independence/\(setting.recipeK.name)/d\(setting.dimension)g\(setting.group)"
    var used = setting
    used.load = .long
    used.heads = 4
    return DeviceCase(name: name) {
      try layout(used)
    } instances: {
      [PagedDecode.instance(layout: $0, queryRows: used.group)]
    } run: { [used] layout, bench in
      let seed = DeviceCase.seed(name)
      var random = RandomNumbers(seed: seed)
      let lengths = [5000, 17, 2222, 900, 64, 128, 7001]
      let cache = try CacheFixture(
        layout: layout, lengths: lengths, scales: used.scales, seed: seed, workers: bench.workers)
      let heads = used.heads * used.group
      let width = heads * used.dimension
      let queries = random.normals(lengths.count * width, scale: 1.5).map { used.queryType.rounded($0) }
      let pool = try cache.upload(to: bench)
      let runner = DecodeRunner(layout: layout, queryHeadCount: heads, splitting: used.load.splitting)
      let together = try runner.run(
        queries: queries, pool: pool, tables: cache.pageTables, lengths: lengths, scales: used.scales, bench: bench)
      let order = Array(lengths.indices.reversed())
      let reversed = try runner.run(
        queries: order.flatMap { queries[$0 * width..<($0 + 1) * width] }, pool: pool,
        tables: order.map { cache.pageTables[$0] }, lengths: order.map { lengths[$0] }, scales: used.scales,
        bench: bench)
      let copies = 24  // over the same pages
      let many = try runner.run(
        queries: (0..<copies).flatMap { _ in queries }, pool: pool,
        tables: (0..<copies).flatMap { _ in cache.pageTables }, lengths: (0..<copies).flatMap { _ in lengths },
        scales: used.scales, bench: bench)
      var failure: String?
      for (index, length) in lengths.enumerated() {
        let alone = try runner.run(
          queries: Array(queries[index * width..<(index + 1) * width]), pool: pool, tables: [cache.pageTables[index]],
          lengths: [length], scales: used.scales, bench: bench)
        let place = lengths.count - 1 - index
        let same = alone.values.indices.allSatisfy {
          alone.values[$0].bitPattern == together.values[index * width + $0].bitPattern
            && alone.values[$0].bitPattern == reversed.values[place * width + $0].bitPattern
        }
        let sameInMany = (0..<copies).allSatisfy { copy in
          alone.values.indices.allSatisfy {
            alone.values[$0].bitPattern == many.values[(copy * lengths.count + index) * width + $0].bitPattern
          }
        }
        if !sameInMany { failure = failure ?? "request \(index) of \(length) tokens has other bits in a large batch" }
        if !same { failure = failure ?? "request \(index) of \(length) tokens has other bits alone than in a batch" }
      }
      var result = CaseResult(passed: failure == nil, failure: failure)
      result.line.add("requests", lengths.count)
      return result
    }
  }
}

/// Natural logarithm of the sum of exponentials.
func logSumExp(_ scores: [Double]) -> Double {
  let maximum = scores.max() ?? 0
  return maximum + log(scores.reduce(0) { $0 + exp($1 - maximum) })
}
