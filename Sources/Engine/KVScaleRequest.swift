import Checkpoints
import KVQuantization
import ModelFamilies

/// Where the KV cache's scales come from, as `--kv-cache-scales` and `--kv-scale-convention` say.
public struct KVScaleRequest: Hashable, Sendable {
  /// What `--kv-cache-scales` names.
  public enum Source: Hashable, Sendable {
    /// The checkpoint's tensors, else kv_scales.json beside them, else none.
    case automatic
    /// The checkpoint's tensors, else none: what any other engine knows.
    case checkpoint
    case none
    case file(String)
  }

  public var source: Source
  /// What scales are of amax where their source doesn't say.
  public var convention: KVScaleConvention?

  public init(source: Source = .automatic, convention: KVScaleConvention? = nil) {
    self.source = source
    self.convention = convention
  }

  /// Finds the scales and passes them through the gate.
  /// - Parameter layerCount: layers of the model's cache.
  /// - Throws: `CheckpointError` where they can't be read, `KVQuantizationError` where they can't be used.
  public func resolve(
    _ checkpoint: Checkpoint, recipes: CacheRecipes, layerCount: Int
  ) throws -> KVScaleResolution {
    let scales = try found(checkpoint.directory) { try KVScaleSet(checkpoint: checkpoint) }
    return try resolve(scales, checkpoint.configuration, recipes: recipes, layerCount: layerCount)
  }

  /// The scales of this source; nil where there are none.
  /// - Parameter tensors: those among the checkpoint's tensors.
  func found(_ directory: String, tensors: () throws -> KVScaleSet?) throws -> KVScaleSet? {
    switch source {
    case .automatic: try tensors() ?? KVScaleSet.beside(directory)
    case .checkpoint: try tensors()
    case .none: nil
    case .file(let path): try KVScaleSet(contentsOf: path)
    }
  }

  /// Passes scales through the gate.
  /// - Throws: `KVQuantizationError` where they can't be used.
  func resolve(
    _ scales: KVScaleSet?, _ model: ModelConfiguration, recipes: CacheRecipes, layerCount: Int
  ) throws -> KVScaleResolution {
    let isMLA = model.kvGeometry.isMLA
    return try KVScaleGate(
      key: recipes.key, value: isMLA ? recipes.rope : recipes.value, isMLA: isMLA, layerCount: layerCount,
      extraLayerCount: model.layerCount + model.nextnLayerCount - layerCount, assumedConvention: convention
    ).resolve(scales)
  }
}
