import Checkpoints
import Operators
import PagedCache

/// Llama 3, Qwen2 and Qwen3: grouped-query attention with rotary embedding and a gated feed-forward network, both behind an RMS
/// norm and a residual connection. They differ in biases (Qwen2), norms of query and key heads (Qwen3) and rope scaling (Llama 3).
public final class DenseTransformer<Ops: ModelOperators>: LanguageModel {
  struct Layer {
    let inputNorm: Ops.Vector
    let queryKeyValue: Ops.Matrix
    let queryKeyValueBias: Ops.Vector?
    let queryNorm: Ops.Vector?
    let keyNorm: Ops.Vector?
    let output: Ops.Matrix
    let outputBias: Ops.Vector?
    let postAttentionNorm: Ops.Vector
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
    let queryWidth = configuration.queryHeadCount * configuration.headDimension
    let keyWidth = configuration.kvHeadCount * configuration.headDimension
    let hiddenSize = configuration.hiddenSize

    frame = try TransformerFrame(loader, rotaryDimension: configuration.headDimension)
    let arrays = FeedForwardArrays(operators)
    layers = try (0..<configuration.layerCount).map { index in
      let prefix = "model.layers.\(index)."
      let attention = prefix + "self_attn."
      defer { progress(Double(index + 1) / Double(configuration.layerCount)) }
      return Layer(
        inputNorm: try loader.vector((prefix + "input_layernorm.weight", hiddenSize)),
        queryKeyValue: try loader.matrix(
          (attention + "q_proj.weight", queryWidth), (attention + "k_proj.weight", keyWidth),
          (attention + "v_proj.weight", keyWidth), inputs: hiddenSize),
        queryKeyValueBias: configuration.attentionBias
          ? try loader.vector(
            (attention + "q_proj.bias", queryWidth), (attention + "k_proj.bias", keyWidth),
            (attention + "v_proj.bias", keyWidth)) : nil,
        queryNorm: configuration.qkNorm
          ? try loader.vector((attention + "q_norm.weight", configuration.headDimension)) : nil,
        keyNorm: configuration.qkNorm
          ? try loader.vector((attention + "k_norm.weight", configuration.headDimension)) : nil,
        output: try loader.matrix((attention + "o_proj.weight", hiddenSize), inputs: queryWidth),
        outputBias: configuration.attentionOutputBias
          ? try loader.vector((attention + "o_proj.bias", hiddenSize)) : nil,
        postAttentionNorm: try loader.vector((prefix + "post_attention_layernorm.weight", hiddenSize)),
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
    let (hidden, normed) = (frame.hidden, frame.normed)
    let epsilon = configuration.rmsNormEpsilon
    let dimension = configuration.headDimension
    let queries = 0..<configuration.queryHeadCount * dimension
    let keys = queries.upperBound..<queries.upperBound + configuration.kvHeadCount * dimension
    let values = keys.upperBound..<keys.upperBound + keys.count

    operators.rmsNorm(hidden, weight: layer.inputNorm, epsilon: epsilon, into: normed)
    operators.linear(normed, layer.queryKeyValue, bias: layer.queryKeyValueBias, accumulate: false, into: heads)
    if let norm = layer.queryNorm {
      operators.rmsNormHeads(heads, columns: queries, headDimension: dimension, weight: norm, epsilon: epsilon)
    }
    if let norm = layer.keyNorm {
      operators.rmsNormHeads(heads, columns: keys, headDimension: dimension, weight: norm, epsilon: epsilon)
    }
    operators.rotate(heads, columns: queries.lowerBound..<keys.upperBound, headDimension: dimension)
    operators.store(heads, keys: keys, values: values, layer: index)
    if index == layers.count - 1 { operators.keepLogitsRows(of: hidden, heads) }
    operators.attend(
      heads, queries: queries, headCount: configuration.queryHeadCount, layer: index,
      softmaxScale: configuration.softmaxScale, into: attended)
    operators.linear(attended, layer.output, bias: layer.outputBias, accumulate: true, into: hidden)

    operators.rmsNorm(hidden, weight: layer.postAttentionNorm, epsilon: epsilon, into: normed)
    layer.feedForward(normed, operators: operators, into: hidden)
  }
}
