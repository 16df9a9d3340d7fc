import Checkpoints
import Operators

/// Multi-head latent attention in absorbed form (arXiv 2405.04434, section 2.1): the cache keeps one latent and one rotary key a
/// token; queries are carried into the latent space before attention and its result out of it afterwards.
struct LatentAttention<Ops: LatentOperators> {
  /// Arrays of a step, shared by all layers.
  struct Arrays {
    /// [T, latent + rope]
    let compressed: Ops.Activations
    /// [T, q_lora_rank], where queries are compressed too.
    let compressedQueries: Ops.Activations?
    /// [T, heads x (nope + rope)]
    let queries: Ops.Activations
    /// [T, heads x (latent + rope)]
    let absorbed: Ops.Activations
    /// [T, heads x latent]
    let attended: Ops.Activations
    /// [T, heads x v]
    let values: Ops.Activations

    init(_ operators: Ops, heads: Int, _ mla: MLAConfiguration) {
      let (latent, rope) = (mla.kvLoraRank, mla.qkRopeHeadDimension)
      compressed = operators.makeActivations(width: latent + rope)
      compressedQueries = mla.queryLoraRank.map { operators.makeActivations(width: $0) }
      queries = operators.makeActivations(width: heads * (mla.qkNopeHeadDimension + rope))
      absorbed = operators.makeActivations(width: heads * (latent + rope))
      attended = operators.makeActivations(width: heads * latent)
      values = operators.makeActivations(width: heads * mla.valueHeadDimension)
    }
  }

  private enum Queries {
    case direct(Ops.Matrix)
    case compressed(down: Ops.Matrix, bias: Ops.Vector?, norm: Ops.Vector, up: Ops.Matrix)
  }

  private let mla: MLAConfiguration
  private let heads: Int
  /// Of the pool.
  private let layer: Int
  private let softmaxScale: Float
  private let queries: Queries
  private let compress: Ops.Matrix
  private let compressBias: Ops.Vector?
  private let norm: Ops.Vector
  /// [heads x (nope + v), latent]: for each head the key up-projection, then the value up-projection.
  private let up: Ops.Matrix
  private let output: Ops.Matrix
  private let outputBias: Ops.Vector?
  private let arrays: Arrays
  /// The norms inside attention have an epsilon of their own in every published implementation.
  private let epsilon: Float = 1e-6

  /// - Parameters:
  ///   - layer: of the checkpoint.
  ///   - cacheLayer: of the pool.
  init(
    _ loader: WeightLoader<Ops>, configuration: ModelConfiguration, _ mla: MLAConfiguration, layer: Int,
    cacheLayer: Int, arrays: Arrays
  ) throws {
    let prefix = "model.layers.\(layer).self_attn."
    let (heads, hiddenSize) = (configuration.queryHeadCount, configuration.hiddenSize)
    let queryWidth = heads * (mla.qkNopeHeadDimension + mla.qkRopeHeadDimension)
    let compressedWidth = mla.kvLoraRank + mla.qkRopeHeadDimension
    let hasBias = configuration.attentionBias
    if let rank = mla.queryLoraRank {
      queries = .compressed(
        down: try loader.matrix((prefix + "q_a_proj.weight", rank), inputs: hiddenSize),
        bias: hasBias ? try loader.vector((prefix + "q_a_proj.bias", rank)) : nil,
        norm: try loader.vector((prefix + "q_a_layernorm.weight", rank)),
        up: try loader.matrix((prefix + "q_b_proj.weight", queryWidth), inputs: rank))
    } else {
      queries = .direct(try loader.matrix((prefix + "q_proj.weight", queryWidth), inputs: hiddenSize))
    }
    compress = try loader.matrix((prefix + "kv_a_proj_with_mqa.weight", compressedWidth), inputs: hiddenSize)
    compressBias = hasBias ? try loader.vector((prefix + "kv_a_proj_with_mqa.bias", compressedWidth)) : nil
    norm = try loader.vector((prefix + "kv_a_layernorm.weight", mla.kvLoraRank))
    up = try loader.table(
      (prefix + "kv_b_proj.weight", heads * (mla.qkNopeHeadDimension + mla.valueHeadDimension)), inputs: mla.kvLoraRank)
    output = try loader.matrix((prefix + "o_proj.weight", hiddenSize), inputs: heads * mla.valueHeadDimension)
    outputBias = configuration.attentionOutputBias ? try loader.vector((prefix + "o_proj.bias", hiddenSize)) : nil
    softmaxScale = configuration.softmaxScale
    self.mla = mla
    self.heads = heads
    self.layer = cacheLayer
    self.arrays = arrays
  }

  /// Stores the step's latents and rotary keys.
  func store(_ x: Ops.Activations, operators: Ops) {
    let (latent, rope) = (mla.kvLoraRank, mla.qkRopeHeadDimension)
    operators.linear(x, compress, bias: compressBias, accumulate: false, into: arrays.compressed)
    operators.rmsNormHeads(
      arrays.compressed, columns: 0..<latent, headDimension: latent, weight: norm, epsilon: epsilon)
    operators.rotate(arrays.compressed, columns: 0..<latent + rope, headDimension: latent + rope)
    operators.store(arrays.compressed, keys: 0..<latent, values: latent..<latent + rope, layer: layer)
  }

  /// Stores the step's latents and rotary keys, attends to the cache, and adds the result to `residual`.
  /// - Parameter onlyLogitsRows: nothing but the rows whose logits are wanted is needed of the result and of what comes after it.
  func callAsFunction(
    _ x: Ops.Activations, operators: Ops, onlyLogitsRows: Bool, into residual: Ops.Activations
  ) {
    let (latent, rope) = (mla.kvLoraRank, mla.qkRopeHeadDimension)
    let (nope, value) = (mla.qkNopeHeadDimension, mla.valueHeadDimension)
    store(x, operators: operators)
    if onlyLogitsRows { operators.keepLogitsRows(of: x, residual) }
    projectQueries(x, operators: operators)
    operators.rotate(arrays.queries, columns: 0..<heads * (nope + rope), headDimension: nope + rope)
    operators.multiplyHeads(
      arrays.queries, at: HeadSpans(stride: nope + rope), width: nope, by: up, rows: HeadSpans(stride: nope + value),
      headCount: heads, into: arrays.absorbed, at: HeadSpans(stride: latent + rope))
    operators.copyHeads(
      arrays.queries, at: HeadSpans(first: nope, stride: nope + rope), width: rope, headCount: heads,
      into: arrays.absorbed, at: HeadSpans(first: latent, stride: latent + rope))
    operators.attend(
      arrays.absorbed, queries: 0..<heads * (latent + rope), headCount: heads, layer: layer, softmaxScale: softmaxScale,
      into: arrays.attended)
    operators.multiplyHeadsTransposed(
      arrays.attended, at: HeadSpans(stride: latent), by: up, rows: HeadSpans(first: nope, stride: nope + value),
      width: value, headCount: heads, into: arrays.values, at: HeadSpans(stride: value))
    operators.linear(arrays.values, output, bias: outputBias, accumulate: true, into: residual)
  }

  private func projectQueries(_ x: Ops.Activations, operators: Ops) {
    switch queries {
    case .direct(let matrix):
      operators.linear(x, matrix, bias: nil, accumulate: false, into: arrays.queries)
    case .compressed(let down, let bias, let norm, let up):
      guard let compressed = arrays.compressedQueries else { return }
      operators.linear(x, down, bias: bias, accumulate: false, into: compressed)
      operators.rmsNorm(compressed, weight: norm, epsilon: epsilon, into: compressed)
      operators.linear(compressed, up, bias: nil, accumulate: false, into: arrays.queries)
    }
  }
}
