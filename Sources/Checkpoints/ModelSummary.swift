import JSON
import KVQuantization

/// What a model folder holds, for `nibble inspect`: geometry, parameters, element types, what a token costs in the cache under
/// each recipe, and the KV scales that were found.
public struct ModelSummary: Sendable {
  public let directory: String
  public let configuration: ModelConfiguration
  public let fileCount: Int
  public let tensorCount: Int
  /// Elements of all tensors that are weights: KV scales left out.
  public let parameterCount: Int
  public let byteCount: Int
  /// Elements by type, most first.
  public let elementCounts: [(dtype: TensorType, count: Int)]
  /// Bytes of one token over all layers; nil where the geometry doesn't divide into a recipe's blocks.
  public let cacheCosts: [(recipe: KVRecipe, bytesPerToken: Int?)]
  /// From the tensors, else from kv_scales.json beside them.
  public let scales: KVScaleSet?

  /// - Throws: `CheckpointError` for scales that can't be read.
  public init(_ checkpoint: Checkpoint) throws(CheckpointError) {
    directory = checkpoint.directory
    configuration = checkpoint.configuration
    fileCount = checkpoint.files.count
    tensorCount = checkpoint.tensorNames.count
    var counts: [TensorType: Int] = [:]
    var bytes = 0
    for name in checkpoint.tensorNames where KVScaleName(name) == nil {
      let tensor = try checkpoint.tensor(named: name)
      counts[tensor.dtype, default: 0] += tensor.elementCount
      bytes += tensor.bytes.count
    }
    parameterCount = counts.values.reduce(0, +)
    byteCount = bytes
    elementCounts = counts.sorted { ($1.value, $0.key.rawValue) < ($0.value, $1.key.rawValue) }
      .map { (dtype: $0.key, count: $0.value) }
    let model = checkpoint.configuration
    cacheCosts = KVRecipe.allCases.map { (recipe: $0, bytesPerToken: model.kvBytesPerToken($0)) }
    scales = try KVScaleSet.found(for: checkpoint)
  }
}

extension KVScaleSet {
  /// The scales that `--kv-cache-scales auto` uses: the checkpoint's tensors, else kv_scales.json beside them.
  public static func found(for checkpoint: Checkpoint) throws(CheckpointError) -> KVScaleSet? {
    if let scales = try KVScaleSet(checkpoint: checkpoint) { return scales }
    return try beside(checkpoint.directory)
  }

  /// kv_scales.json of a model folder; nil where there is none.
  public static func beside(_ directory: String) throws(CheckpointError) -> KVScaleSet? {
    let path = "\(directory)/\(fileName)"
    return JSONValue.isMissing(path) ? nil : try KVScaleSet(contentsOf: path)
  }
}
