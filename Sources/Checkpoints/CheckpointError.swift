import JSON

/// What can be wrong with a model folder.
public enum CheckpointError: Error, Hashable, Sendable, CustomStringConvertible {
  case unreadable(path: String, reason: String)
  case json(path: String, JSONError)
  /// A safetensors file whose header doesn't describe its bytes.
  case invalidTensorFile(path: String, reason: String)
  /// A tensor that isn't what the configuration needs.
  case invalidTensor(name: String, path: String, expected: String, found: String)
  /// A shard index that doesn't match its shards.
  case invalidIndex(path: String, reason: String)
  case missingTensor(name: String, path: String)
  case missingKey(String, path: String)
  case invalidValue(key: String, path: String, expected: String, found: String)
  case unsupportedArchitecture(String, path: String)
  case unsupportedFeature(String, path: String)
  case unwritable(path: String, reason: String)

  public var description: String {
    switch self {
    case .unreadable(let path, let reason): "can't read \(path): \(reason)"
    case .json(_, .unreadableFile(let path, let reason)): "can't read \(path): \(reason)"
    case .json(let path, let error): "\(path): \(error)"
    case .invalidTensorFile(let path, let reason): "\(path) is not a valid safetensors file: \(reason)"
    case .invalidTensor(let name, let path, let expected, let found):
      "\(path): expected tensor '\(name)' \(expected), found \(found)"
    case .invalidIndex(let path, let reason): "\(path) does not match its shards: \(reason)"
    case .missingTensor(let name, let path):
      "\(path) has no tensor '\(name)'; the checkpoint is incomplete or of another architecture than config.json says"
    case .missingKey(let key, let path): "\(path) has no '\(key)', which its architecture needs"
    case .invalidValue(let key, let path, let expected, let found):
      "\(path): expected '\(key)' to be \(expected), found \(found)"
    case .unsupportedArchitecture(let name, let path):
      """
      \(path): architecture '\(name)' is not supported; expected one of: \
      \(ModelConfiguration.Architecture.allCases.map(\.rawValue).joined(separator: ", "))
      """
    case .unsupportedFeature(let feature, let path): "\(path) asks for \(feature), which is not supported"
    case .unwritable(let path, let reason): "can't write \(path): \(reason)"
    }
  }
}
