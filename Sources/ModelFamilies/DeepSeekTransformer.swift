import Checkpoints
import Operators
import PagedCache

/// DeepSeek-V2, V3 and R1: multi-head latent attention, and experts behind the first dense layers.
public final class DeepSeekTransformer<Ops: ModelOperators>: LanguageModel {
  struct Layer {
    let inputNorm: Ops.Vector
    let attention: LatentAttention<Ops>
    let postAttentionNorm: RMSNorm<Ops.Vector>
    let feedForward: FeedForward<Ops>
  }

  public let configuration: ModelConfiguration
  public let operators: Ops
  private let mla: MLAConfiguration
  /// Owns the mapped files that the weights are read from.
  private let checkpoint: Checkpoint
  private let frame: TransformerFrame<Ops>
  private let layers: [Layer]
  private let draftLayers: [DraftLayer<Ops>]

  public var vocabularySize: Int { configuration.vocabularySize }
  public var layerCount: Int { configuration.layerCount }
  public var contextLimit: Int { configuration.maxPositionEmbeddings }

  /// - Parameters:
  ///   - drafts: loads the layers for multi-token prediction too.
  ///   - progress: called after each layer with the share that is loaded.
  /// - Throws: `CheckpointError` for a missing tensor or a shape that the configuration contradicts, `ExpertRoutingError`.
  public init(
    checkpoint: Checkpoint, mla: MLAConfiguration, operators: Ops, drafts: Bool = false,
    progress: (Double) -> Void = { _ in }
  ) throws {
    let configuration = checkpoint.configuration
    let loader = WeightLoader(checkpoint: checkpoint, operators: operators)
    let hiddenSize = configuration.hiddenSize
    let frame = try TransformerFrame(loader, rotaryDimension: mla.qkRopeHeadDimension)
    let attentionArrays = LatentAttention<Ops>.Arrays(operators, heads: configuration.queryHeadCount, mla)
    let feedForwardArrays = FeedForwardArrays(operators)
    func loadLayer(_ index: Int, cacheLayer: Int) throws -> Layer {
      let prefix = "model.layers.\(index)."
      return Layer(
        inputNorm: try loader.vector((prefix + "input_layernorm.weight", hiddenSize)),
        attention: try LatentAttention(
          loader, configuration: configuration, mla, layer: index, cacheLayer: cacheLayer, arrays: attentionArrays),
        postAttentionNorm: RMSNorm(
          weight: try loader.vector((prefix + "post_attention_layernorm.weight", hiddenSize)),
          epsilon: configuration.rmsNormEpsilon),
        feedForward: try FeedForward(loader, configuration: configuration, layer: index, arrays: feedForwardArrays))
    }
    layers = try (0..<configuration.layerCount).map { index in
      defer { progress(Double(index + 1) / Double(configuration.layerCount)) }
      return try loadLayer(index, cacheLayer: index)
    }
    if drafts { try DraftLayer<Ops>.checkPresence(in: checkpoint) }
    draftLayers = try (0..<(drafts ? configuration.nextnLayerCount : 0)).map { index in
      try DraftLayer(
        loader, index: index, layer: try loadLayer(configuration.layerCount + index, cacheLayer: index), frame: frame)
    }
    self.frame = frame
    self.checkpoint = checkpoint
    self.configuration = configuration
    self.mla = mla
    self.operators = operators
  }

  public func cacheLayout(_ recipes: CacheRecipes, pageSize: Int) throws(PagedCacheError) -> CacheLayout {
    try recipes.layout(of: configuration.kvGeometry, pageSize: pageSize)
  }

  public func forward(_ batch: StepBatch, pool: PagePool, logits: UnsafeMutableBufferPointer<Float>) throws {
    forward(batch, pool: pool, logits: logits, needsAllRows: false)
  }

  private func forward(
    _ batch: StepBatch, pool: PagePool, logits: UnsafeMutableBufferPointer<Float>, needsAllRows: Bool
  ) {
    frame.run(batch, pool: pool, logits: logits) {
      for index in layers.indices {
        run(layers[index], onlyLogitsRows: index == layers.count - 1 && !needsAllRows)
      }
    }
  }

  private func run(_ layer: Layer, onlyLogitsRows: Bool) {
    let (hidden, normed) = (frame.hidden, frame.normed)
    operators.rmsNorm(hidden, weight: layer.inputNorm, epsilon: configuration.rmsNormEpsilon, into: normed)
    layer.attention(normed, operators: operators, onlyLogitsRows: onlyLogitsRows, into: hidden)
    layer.feedForward(hidden, norm: layer.postAttentionNorm, operators: operators, normed: normed)
  }
}

// MARK: Drafts

extension DeepSeekTransformer: DraftingModel {
  public var hiddenSize: Int { configuration.hiddenSize }
  public var draftLayerCount: Int { draftLayers.count }

  public func forward(
    _ batch: StepBatch, pool: PagePool, logits: UnsafeMutableBufferPointer<Float>,
    hidden states: UnsafeMutableBufferPointer<Float>
  ) throws {
    forward(batch, pool: pool, logits: logits, needsAllRows: true)
    frame.read(into: states)
  }

  public func draft(
    _ batch: StepBatch, layer index: Int, pool: PagePool, previousHidden: UnsafeBufferPointer<Float>,
    logits: UnsafeMutableBufferPointer<Float>, hidden states: UnsafeMutableBufferPointer<Float>
  ) throws {
    guard draftLayers.indices.contains(index) else { throw DraftError.noDraftLayer(index, count: draftLayers.count) }
    let draft = draftLayers[index]
    let (hidden, normed) = (frame.hidden, frame.normed)
    let epsilon = configuration.rmsNormEpsilon
    let whole = HeadSpans(stride: hiddenSize)
    frame.begin(batch, pool: pool)
    operators.write(previousHidden, into: draft.previous)
    operators.embed(draft.embedding, into: hidden)
    operators.rmsNorm(hidden, weight: draft.embeddingNorm, epsilon: epsilon, into: normed)
    operators.copyHeads(normed, at: whole, width: hiddenSize, headCount: 1, into: draft.concatenated, at: whole)
    operators.rmsNorm(draft.previous, weight: draft.hiddenNorm, epsilon: epsilon, into: normed)
    operators.copyHeads(
      normed, at: whole, width: hiddenSize, headCount: 1, into: draft.concatenated,
      at: HeadSpans(first: hiddenSize, stride: hiddenSize))
    operators.linear(draft.concatenated, draft.projection, bias: nil, accumulate: false, into: hidden)
    guard !logits.isEmpty || !states.isEmpty else {
      // Only what the layer keeps of the tokens is wanted.
      operators.rmsNorm(hidden, weight: draft.layer.inputNorm, epsilon: epsilon, into: normed)
      return draft.layer.attention.store(normed, operators: operators)
    }
    run(draft.layer, onlyLogitsRows: states.isEmpty)
    if !logits.isEmpty {
      operators.logits(hidden, norm: draft.norm, epsilon: epsilon, head: draft.head, into: logits)
    }
    if !states.isEmpty {
      operators.rmsNorm(hidden, weight: draft.norm, epsilon: epsilon, into: normed)
      operators.read(normed, into: states)
    }
  }
}
