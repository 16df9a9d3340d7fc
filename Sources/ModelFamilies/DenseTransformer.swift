import Checkpoints
import Operators
import PagedCache

/// Llama 3, Qwen2 and Qwen3: grouped-query attention with rotary embedding and a gated feed-forward network, both behind an RMS
/// norm and a residual connection. They differ in biases (Qwen2), norms of query and key heads (Qwen3) and rope scaling (Llama 3).
public final class DenseTransformer<Ops: ModelOperators>: LanguageModel {
  struct Layer {
    let inputNorm: RMSNorm<Ops.Vector>
    let queryKeyValue: Ops.Matrix
    let queryKeyValueBias: Ops.Vector?
    let heads: AttentionHeads<Ops.Vector>
    let output: Ops.Matrix
    let outputBias: Ops.Vector?
    let postAttentionNorm: RMSNorm<Ops.Vector>
    let feedForward: FeedForward<Ops>
  }

  public let configuration: ModelConfiguration
  public let operators: Ops
  /// Owns the mapped files that the weights are read from.
  private let checkpoint: Checkpoint
  private let frame: TransformerFrame<Ops>
  private let layers: [Layer]

  // Arrays of a step, [T, width].
  private let heads: Ops.Activations
  private let attended: Ops.Activations

  public var vocabularySize: Int { configuration.vocabularySize }
  public var layerCount: Int { configuration.layerCount }
  public var contextLimit: Int { configuration.maxPositionEmbeddings }

  /// - Parameter progress: called after each layer with the share that is loaded.
  /// - Throws: `CheckpointError` for a missing tensor or a shape that the configuration contradicts.
  public init(
    checkpoint: Checkpoint, operators: Ops, progress: (Double) -> Void = { _ in }
  ) throws {
    let configuration = checkpoint.configuration
    let loader = WeightLoader(checkpoint: checkpoint, operators: operators)
    let headDimension = configuration.headDimension
    let queryWidth = configuration.queryHeadCount * headDimension
    let keyWidth = configuration.kvHeadCount * headDimension
    let hiddenSize = configuration.hiddenSize

    frame = try TransformerFrame(loader, rotaryDimension: headDimension)
    let arrays = FeedForwardArrays(operators)
    func norm(_ name: String, _ width: Int) throws -> RMSNorm<Ops.Vector> {
      RMSNorm(weight: try loader.vector((name, width)), epsilon: configuration.rmsNormEpsilon)
    }
    layers = try (0..<configuration.layerCount).map { index in
      let prefix = "model.layers.\(index)."
      let attention = prefix + "self_attn."
      defer { progress(Double(index + 1) / Double(configuration.layerCount)) }
      return Layer(
        inputNorm: try norm(prefix + "input_layernorm.weight", hiddenSize),
        queryKeyValue: try loader.matrix(
          (attention + "q_proj.weight", queryWidth), (attention + "k_proj.weight", keyWidth),
          (attention + "v_proj.weight", keyWidth), inputs: hiddenSize),
        queryKeyValueBias: configuration.attentionBias
          ? try loader.vector(
            (attention + "q_proj.bias", queryWidth), (attention + "k_proj.bias", keyWidth),
            (attention + "v_proj.bias", keyWidth)) : nil,
        heads: AttentionHeads(
          dimension: headDimension, queryHeadCount: configuration.queryHeadCount,
          kvHeadCount: configuration.kvHeadCount,
          queryNorm: configuration.qkNorm ? try norm(attention + "q_norm.weight", headDimension) : nil,
          keyNorm: configuration.qkNorm ? try norm(attention + "k_norm.weight", headDimension) : nil),
        output: try loader.matrix((attention + "o_proj.weight", hiddenSize), inputs: queryWidth),
        outputBias: configuration.attentionOutputBias
          ? try loader.vector((attention + "o_proj.bias", hiddenSize)) : nil,
        postAttentionNorm: try norm(prefix + "post_attention_layernorm.weight", hiddenSize),
        feedForward: try FeedForward(loader, configuration: configuration, layer: index, arrays: arrays))
    }
    heads = operators.makeActivations(width: queryWidth + 2 * keyWidth)
    attended = operators.makeActivations(width: queryWidth)
    self.checkpoint = checkpoint
    self.configuration = configuration
    self.operators = operators
  }

  public func cacheLayout(_ recipes: CacheRecipes, pageSize: Int) throws(PagedCacheError) -> CacheLayout {
    try recipes.layout(of: configuration.kvGeometry, pageSize: pageSize)
  }

  public func forward(_ batch: StepBatch, pool: PagePool, logits: UnsafeMutableBufferPointer<Float>) throws {
    frame.run(batch, pool: pool, logits: logits) {
      // By index: without specialisation an iterator allocates a frame for each element.
      for index in layers.indices { run(layers[index], index) }
    }
  }

  private func run(_ layer: Layer, _ index: Int) {
    let hidden = frame.hidden
    operators.projectHeads(
      hidden, norm: layer.inputNorm, layer.queryKeyValue, bias: layer.queryKeyValueBias, heads: layer.heads,
      layer: index, into: heads)
    if index == layers.count - 1 { operators.keepLogitsRows(of: hidden, heads) }
    operators.attend(
      heads, queries: layer.heads.queries, headCount: configuration.queryHeadCount, layer: index,
      softmaxScale: configuration.softmaxScale, into: attended)
    operators.linear(attended, layer.output, bias: layer.outputBias, accumulate: true, into: hidden)
    layer.feedForward(hidden, norm: layer.postAttentionNorm, operators: operators, normed: frame.normed)
  }
}
