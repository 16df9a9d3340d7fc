import Checkpoints
import Operators

/// Loads the family that a checkpoint's architecture names.
public enum ModelLoader {
  /// - Parameters:
  ///   - drafts: loads the layer for multi-token prediction; the model is then a `DraftingModel`.
  ///   - progress: called with the share of the layers that is loaded.
  /// - Throws: `CheckpointError` for an architecture without a family here, a missing tensor or an unexpected shape.
  public static func load<Ops: ModelOperators>(
    _ checkpoint: Checkpoint, operators: Ops, drafts: Bool = false, progress: (Double) -> Void = { _ in }
  ) throws -> any LanguageModel {
    if drafts { _ = try draftLayerCount(checkpoint.configuration, path: checkpoint.directory) }
    switch checkpoint.configuration.architecture {
    case .llama, .mistral, .qwen2, .qwen3, .qwen3MoE:
      return try DenseTransformer(checkpoint: checkpoint, operators: operators, progress: progress)
    case .deepseekV2, .deepseekV3:
      guard let mla = checkpoint.configuration.mla else {
        throw CheckpointError.missingKey("kv_lora_rank", path: checkpoint.directory)
      }
      return try DeepSeekTransformer(
        checkpoint: checkpoint, mla: mla, operators: operators, drafts: drafts, progress: progress)
    }
  }

  /// Layers for multi-token prediction, known before a model is loaded.
  /// - Parameter path: named in errors.
  /// - Throws: `CheckpointError.unsupportedFeature` for drafts of a model without a layer for them.
  public static func draftLayerCount(_ model: ModelConfiguration, path: String) throws(CheckpointError) -> Int {
    guard model.mla != nil else {
      throw .unsupportedFeature(
        "speculative decoding with \(model.architecture.rawValue) (expected DeepSeek-V3 with a layer for it)",
        path: path)
    }
    guard model.nextnLayerCount > 0 else {
      throw .unsupportedFeature(
        "speculative decoding without a layer for it (num_nextn_predict_layers is 0)", path: path)
    }
    return model.nextnLayerCount
  }
}
