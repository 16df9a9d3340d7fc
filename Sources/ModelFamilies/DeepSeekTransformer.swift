import Checkpoints
import Operators
import PagedCache

/// DeepSeek-V2, V3 and R1: multi-head latent attention, and experts behind the first dense layers.
public final class DeepSeekTransformer<Ops: ModelOperators>: LanguageModel {
  struct Layer {
    let inputNorm: Ops.Vector
    let attention: LatentAttention<Ops>
    let postAttentionNorm: Ops.Vector
    let feedForward: FeedForward<Ops>
  }

  public let configuration: ModelConfiguration
  public let operators: Ops
  private let mla: MLAConfiguration
  /// Owns the mapped files that the weights are read from.
  private let checkpoint: Checkpoint
  private let embedding: Ops.Matrix
  private let layers: [Layer]
  private let finalNorm: Ops.Vector
  private let head: Ops.Matrix
  private let draftLayer: DraftLayer<Ops>?
  private let rotary: RotaryEmbedding

  // Arrays of a step, [T, hidden size].
  private let hidden: Ops.Activations
  private let normed: Ops.Activations
  /// Hidden states of a step's tokens, moved on by one.
  private var shifted: [Float] = []

  public var vocabularySize: Int { configuration.vocabularySize }
  public var layerCount: Int { configuration.layerCount + (draftLayer == nil ? 0 : 1) }
  public var contextLimit: Int { configuration.maxPositionEmbeddings }

  /// - Parameters:
  ///   - drafts: loads the layer for multi-token prediction too.
  ///   - progress: called after each layer with the share that is loaded.
  /// - Throws: `CheckpointError` for a missing tensor or a shape that the configuration contradicts, `ExpertRoutingError`.
  public init(
    checkpoint: Checkpoint, mla: MLAConfiguration, operators: Ops, drafts: Bool = false,
    progress: (Double) -> Void = { _ in }
  ) throws {
    let configuration = checkpoint.configuration
    let loader = WeightLoader(checkpoint: checkpoint, operators: operators)
    let hiddenSize = configuration.hiddenSize
    embedding = try loader.table(("model.embed_tokens.weight", configuration.vocabularySize), inputs: hiddenSize)
    let attentionArrays = LatentAttention<Ops>.Arrays(operators, heads: configuration.queryHeadCount, mla)
    let feedForwardArrays = FeedForwardArrays(operators)
    func loadLayer(_ index: Int) throws -> Layer {
      let prefix = "model.layers.\(index)."
      return Layer(
        inputNorm: try loader.vector((prefix + "input_layernorm.weight", hiddenSize)),
        attention: try LatentAttention(
          loader, configuration: configuration, mla, layer: index, arrays: attentionArrays),
        postAttentionNorm: try loader.vector((prefix + "post_attention_layernorm.weight", hiddenSize)),
        feedForward: try FeedForward(loader, configuration: configuration, layer: index, arrays: feedForwardArrays))
    }
    layers = try (0..<configuration.layerCount).map { index in
      defer { progress(Double(index + 1) / Double(configuration.layerCount)) }
      return try loadLayer(index)
    }
    finalNorm = try loader.vector(("model.norm.weight", hiddenSize))
    let headName = configuration.tieWordEmbeddings ? "model.embed_tokens.weight" : "lm_head.weight"
    head = try loader.matrix((headName, configuration.vocabularySize), inputs: hiddenSize)
    draftLayer =
      drafts
      ? try DraftLayer(
        loader, configuration: configuration, layer: try loadLayer(configuration.layerCount), embedding: embedding,
        head: head) : nil
    rotary = RotaryEmbedding(configuration.rope, dimension: mla.qkRopeHeadDimension)
    hidden = operators.makeActivations(width: hiddenSize)
    normed = operators.makeActivations(width: hiddenSize)
    self.checkpoint = checkpoint
    self.configuration = configuration
    self.mla = mla
    self.operators = operators
  }

  public func cacheLayout(_ recipes: CacheRecipes, pageSize: Int) throws(PagedCacheError) -> CacheLayout {
    try recipes.layout(of: configuration.kvGeometry, pageSize: pageSize)
  }

  public func forward(_ batch: StepBatch, pool: PagePool, logits: UnsafeMutableBufferPointer<Float>) throws {
    operators.beginStep(batch, pool: pool, rotary: rotary)
    operators.embed(embedding, into: hidden)
    for layer in layers { run(layer, hidden) }
    operators.logits(hidden, norm: finalNorm, epsilon: configuration.rmsNormEpsilon, head: head, into: logits)
  }

  private func run(_ layer: Layer, _ x: Ops.Activations) {
    let epsilon = configuration.rmsNormEpsilon
    operators.rmsNorm(x, weight: layer.inputNorm, epsilon: epsilon, into: normed)
    layer.attention(normed, operators: operators, into: x)
    operators.rmsNorm(x, weight: layer.postAttentionNorm, epsilon: epsilon, into: normed)
    layer.feedForward(normed, operators: operators, into: x)
  }
}

// MARK: Drafts

extension DeepSeekTransformer: DraftingModel {
  public var hiddenSize: Int { configuration.hiddenSize }

  public func forward(
    _ batch: StepBatch, pool: PagePool, logits: UnsafeMutableBufferPointer<Float>,
    previousHidden: UnsafeBufferPointer<Float>, hidden states: UnsafeMutableBufferPointer<Float>
  ) throws {
    try forward(batch, pool: pool, logits: logits)
    operators.rmsNorm(hidden, weight: finalNorm, epsilon: configuration.rmsNormEpsilon, into: normed)
    operators.read(normed, into: states)
    guard let draftLayer else { return }
    shift(UnsafeBufferPointer(states), batch: batch, previousHidden: previousHidden)
    shifted.withUnsafeBufferPointer { operators.write($0, into: draftLayer.previous) }
    run(draftLayer)
  }

  public func draft(
    _ batch: StepBatch, pool: PagePool, previousHidden: UnsafeBufferPointer<Float>,
    logits: UnsafeMutableBufferPointer<Float>, hidden states: UnsafeMutableBufferPointer<Float>
  ) throws {
    guard let draftLayer else { throw DraftError.noDraftLayer }
    operators.beginStep(batch, pool: pool, rotary: rotary)
    operators.write(previousHidden, into: draftLayer.previous)
    run(draftLayer)
    let epsilon = configuration.rmsNormEpsilon
    operators.logits(hidden, norm: draftLayer.norm, epsilon: epsilon, head: draftLayer.head, into: logits)
    operators.rmsNorm(hidden, weight: draftLayer.norm, epsilon: epsilon, into: normed)
    operators.read(normed, into: states)
  }

  /// Fills `shifted`: for each token the hidden state of the one before it.
  private func shift(
    _ states: UnsafeBufferPointer<Float>, batch: StepBatch, previousHidden: UnsafeBufferPointer<Float>
  ) {
    shifted.removeAll(keepingCapacity: true)
    for sequence in 0..<batch.sequenceCount {
      let rows = Int(batch.queryOffsets[sequence])..<Int(batch.queryOffsets[sequence + 1])
      shifted += previousHidden[sequence * hiddenSize..<(sequence + 1) * hiddenSize]
      shifted += states[rows.lowerBound * hiddenSize..<(rows.upperBound - 1) * hiddenSize]
    }
  }

  private func run(_ draft: DraftLayer<Ops>) {
    let epsilon = configuration.rmsNormEpsilon
    let whole = HeadSpans(stride: hiddenSize)
    operators.embed(draft.embedding, into: hidden)
    operators.rmsNorm(hidden, weight: draft.embeddingNorm, epsilon: epsilon, into: normed)
    operators.copyHeads(normed, at: whole, width: hiddenSize, headCount: 1, into: draft.concatenated, at: whole)
    operators.rmsNorm(draft.previous, weight: draft.hiddenNorm, epsilon: epsilon, into: normed)
    operators.copyHeads(
      normed, at: whole, width: hiddenSize, headCount: 1, into: draft.concatenated,
      at: HeadSpans(first: hiddenSize, stride: hiddenSize))
    operators.linear(draft.concatenated, draft.projection, bias: nil, accumulate: false, into: hidden)
    run(draft.layer, hidden)
  }
}
