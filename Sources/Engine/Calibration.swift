import CPUBackend
import Checkpoints
import KVQuantization
import ModelFamilies
import Operators
import PagedCache

/// What a model's keys and values look like on a text: the ranges that KV scales are made from.
///
/// The statistics are of what reaches the cache: keys after norm and rotary embedding, MLA's latent and rotary keys. They are read
/// back from a float32 cache, so calibration needs nothing of a model but a forward step.
public struct Calibration {
  /// What `nibble calibrate` leaves above the sample; docs/kv-cache.md has the figures that chose it.
  public static let defaultHeadroom: Float = 2

  /// One side of one layer.
  public struct Side: Sendable {
    /// "K" and "V"; MLA: "latent" and "rope".
    public let name: String
    /// Largest magnitude.
    public let amax: Float
    /// 50, 99 and 99.9 percent of the magnitudes are at most this.
    public let percentiles: (half: Float, p99: Float, p999: Float)
    /// Channels (head and dimension) whose largest magnitude is over four times that of the median channel.
    public let outlierChannels: [Int]
    /// Share of subnormal and zero block scales, and relative L2 error of nvfp4, with each choice of a scale.
    public let choices: [Choice]
  }

  /// nvfp4 with one choice of `decodeScale`.
  public struct Choice: Sendable {
    public let name: String
    public let decodeScale: Float
    public let subnormalScaleShare: Double
    public let relativeError: Double
  }

  /// Room above the largest magnitude of the text, for texts that reach further: what scales are multiplied with.
  public let headroom: Float
  public let tokenCount: Int
  /// [layers] of keys and values; the layers for multi-token prediction come last.
  public let layers: [(key: Side, value: Side)]

  /// Runs tokens through the model and takes the statistics.
  /// - Parameter headroom: at least 1.
  /// - Throws: `EngineError.emptyPrompt`, `PagedCacheError`, or what the model's step throws.
  public init(
    runtime: ModelRuntime, tokens: [Int32], headroom: Float = defaultHeadroom, progress: (Double) -> Void = { _ in }
  ) throws {
    let model = runtime.model
    let tokens = Array(tokens.prefix(model.contextLimit))
    guard !tokens.isEmpty else { throw EngineError.emptyPrompt }
    let layout = try model.cacheLayout(CacheRecipes(.f32), pageSize: 64)
    let pageCount = (tokens.count + layout.pageSize - 1) / layout.pageSize
    func makePool(_ layerCount: Int) throws -> PagePool {
      try PagePool(
        layout: layout, layerCount: layerCount, pageCount: pageCount, scales: Array(repeating: .one, count: layerCount))
    }
    let pool = try makePool(model.layerCount)
    // The draft layers' ranges are measured too where they are loaded.
    let drafting = (model as? any DraftingModel).flatMap { $0.draftLayerCount > 0 ? $0 : nil }
    let draftPool = try drafting.map { try makePool($0.draftLayerCount) }
    var drafts = drafting.flatMap { model in draftPool.map { DraftedSequence(model, pool: $0) } }
    let pages = (0..<pageCount).map { Int32($0) }
    var batch = StepBatch()
    for start in stride(from: 0, to: tokens.count, by: 512) {
      batch.removeAll()
      batch.append(
        tokens: tokens[start..<min(start + 512, tokens.count)], start: start, pages: pages, logits: .none)
      let noLogits = UnsafeMutableBufferPointer<Float>(start: nil, count: 0)
      if drafts == nil {
        try model.forward(batch, pool: pool, logits: noLogits)
      } else {
        try drafts?.forward(batch, pool: pool, logits: noLogits)
      }
      progress(0.5 * Double(start + batch.tokenCount) / Double(tokens.count))
    }
    tokenCount = tokens.count
    self.headroom = headroom
    let sources = [pool, draftPool].compactMap(\.self).flatMap { pool in (0..<pool.layerCount).map { (pool, $0) } }
    layers = sources.enumerated().map { index, source in
      let (pool, layer) = source
      defer { progress(0.5 + 0.5 * Double(index + 1) / Double(sources.count)) }
      let keys = layout.regions.filter { $0.kind == .key || $0.kind == .latent }
      let values = layout.regions.filter { $0.kind == .value || $0.kind == .rope }
      return (
        Self.side(keys, headroom, pool: pool, layer: layer, count: tokens.count, pages: pages),
        Self.side(values, headroom, pool: pool, layer: layer, count: tokens.count, pages: pages)
      )
    }
  }

  /// The amax of every side, as kv_scales.json keeps it.
  public func scales(source: String) -> KVScaleSet {
    var found: [Int: KVScaleSet.Layer] = [:]
    for (index, layer) in layers.enumerated() {
      // A side that is all zeros has no range to scale by.
      found[index] = KVScaleSet.Layer(
        key: layer.key.amax > 0 ? .init(name: "k", value: layer.key.amax) : nil,
        value: layer.value.amax > 0 ? .init(name: "v", value: layer.value.amax) : nil)
    }
    return KVScaleSet(
      layers: found, convention: .amax, conventionReason: "calibration writes amax", source: source, headroom: headroom)
  }

  private static func side(
    _ regions: [CacheRegion], _ headroom: Float, pool: PagePool, layer: Int, count: Int, pages: [Int32]
  ) -> Side {
    let rows = regions.map {
      RowReader(pool: pool, layer: layer, region: $0).rows(0..<count, pages: pages[...])
    }
    let dimension = regions[0].dimension
    let sorted = rows.flatMap { $0.map(\.magnitude) }.sorted()
    let amax = sorted.last ?? 0
    func percentile(_ share: Double) -> Float { sorted[min(sorted.count - 1, Int(share * Double(sorted.count)))] }
    let channels = rows.flatMap { values in
      (0..<dimension).map { channel in
        stride(from: channel, to: values.count, by: dimension).reduce(Float(0)) { max($0, values[$1].magnitude) }
      }
    }
    let medianChannel = channels.sorted()[channels.count / 2]
    let choices: [(String, Float)] = [
      ("none", 1), ("amax/6", amax / 6), ("amax/448", amax / 448), ("amax/2688", headroom * amax / 2688),
    ]
    return Side(
      name: regions[0].kind.label, amax: amax, percentiles: (percentile(0.5), percentile(0.99), percentile(0.999)),
      outlierChannels: channels.indices.filter { channels[$0] > 4 * medianChannel },
      choices: choices.compactMap { name, scale in
        choice(name, decodeScale: scale, rows: rows, dimension: dimension)
      })
  }

  /// nil where nvfp4 can't store the rows or the scale isn't a positive number.
  private static func choice(_ name: String, decodeScale: Float, rows: [[Float]], dimension: Int) -> Choice? {
    var statistics = EncodeStatistics()
    var error = RoundTripError()
    for values in rows {
      let slices = stride(from: 0, to: values.count, by: dimension).lazy.map { Array(values[$0..<$0 + dimension]) }
      guard let result = try? KVRecipe.nvfp4.roundTripError(slices, decodeScale: decodeScale) else { return nil }
      statistics += result.statistics
      error += result.error
    }
    return Choice(
      name: name, decodeScale: decodeScale, subnormalScaleShare: statistics.subnormalScaleShare,
      relativeError: error.relativeL2)
  }
}

extension CacheRegionKind {
  fileprivate var label: String {
    switch self {
    case .key: "K"
    case .value: "V"
    case .latent: "latent"
    case .rope: "rope"
    }
  }
}
