import Checkpoints
import Operators

/// One of DeepSeek-V3's multi-token-prediction layers, `model.layers.{L}` and on behind the last layer: eh_proj of the norms of a
/// token's embedding and of its predecessor's hidden state, a decoder layer, and the output head behind a norm of its own.
struct DraftLayer<Ops: ModelOperators> {
  let embedding: Ops.Matrix
  let embeddingNorm: Ops.Vector
  let hiddenNorm: Ops.Vector
  let projection: Ops.Matrix
  let layer: DeepSeekTransformer<Ops>.Layer
  let norm: Ops.Vector
  let head: Ops.Matrix
  /// [T, 2 x hidden size]
  let concatenated: Ops.Activations
  /// [T, hidden size] hidden states of the predecessors.
  let previous: Ops.Activations

  /// - Parameters:
  ///   - index: 0 for the first of them.
  ///   - layer: its decoder layer, loaded as the others are.
  ///   - frame: the main model's embedding and head, for files that leave out the layer's own.
  init(
    _ loader: WeightLoader<Ops>, index: Int, layer: DeepSeekTransformer<Ops>.Layer, frame: TransformerFrame<Ops>
  ) throws {
    let configuration = loader.checkpoint.configuration
    let prefix = "model.layers.\(configuration.layerCount + index)."
    let (hiddenSize, vocabulary) = (configuration.hiddenSize, configuration.vocabularySize)
    func own(_ name: String) -> Bool { loader.checkpoint.contains(prefix + name) }
    embedding =
      own("embed_tokens.weight")
      ? try loader.table((prefix + "embed_tokens.weight", vocabulary), inputs: hiddenSize) : frame.embedding
    head =
      own("shared_head.head.weight")
      ? try loader.matrix((prefix + "shared_head.head.weight", vocabulary), inputs: hiddenSize) : frame.head
    embeddingNorm = try loader.vector((prefix + "enorm.weight", hiddenSize))
    hiddenNorm = try loader.vector((prefix + "hnorm.weight", hiddenSize))
    projection = try loader.matrix((prefix + "eh_proj.weight", hiddenSize), inputs: 2 * hiddenSize)
    norm = try loader.vector((prefix + "shared_head.norm.weight", hiddenSize))
    concatenated = loader.operators.makeActivations(width: 2 * hiddenSize)
    previous = loader.operators.makeActivations(width: hiddenSize)
    self.layer = layer
  }

  /// - Throws: `CheckpointError.unsupportedFeature` for a checkpoint that announces such layers and lacks them.
  static func checkPresence(in checkpoint: Checkpoint) throws(CheckpointError) {
    guard !checkpoint.hasDraftLayers else { return }
    let model = checkpoint.configuration
    throw .unsupportedFeature(
      "speculative decoding without a layer for it (num_nextn_predict_layers is \(model.nextnLayerCount), but the files have no "
        + "model.layers.\(model.layerCount).eh_proj.weight)", path: checkpoint.directory)
  }
}

extension Checkpoint {
  /// Whether layers for multi-token prediction are announced and present; files without them are common.
  public var hasDraftLayers: Bool {
    configuration.nextnLayerCount > 0 && contains("model.layers.\(configuration.layerCount).eh_proj.weight")
  }
}
