import KVQuantization

/// What can be wrong with a cache: its geometry, the memory it asks for, or a file that should hold a part of it.
public enum PagedCacheError: Error, Hashable, Sendable, CustomStringConvertible {
  case invalidGeometry(String)
  case recipe(KVQuantizationError)
  case invalidMemorySize(String)
  case outOfMemory(bytes: Int)
  case outOfPages(wanted: Int, free: Int)
  /// A saved prefix can't be written or read; the reason is the system's.
  case fileFailed(action: String, path: String, reason: String)
  /// The bytes at `path` are no saved prefix of this version.
  case fileRejected(path: String, reason: String)
  /// A saved prefix belongs to another model, recipe or layout.
  case identityMismatch(path: String, field: String, expected: String, found: String)
  /// The books don't balance: a defect of Nibble, found by `checkIntegrity()`.
  case corrupted(String)

  public var description: String {
    switch self {
    case .invalidGeometry(let reason): "invalid KV cache geometry: \(reason)"
    case .recipe(let error): error.description
    case .invalidMemorySize(let text):
      "expected a memory size such as 80GiB, 640MB or 8x80GiB, found '\(text)'"
    case .outOfMemory(let bytes):
      "could not reserve \(bytes) bytes for the KV cache; try a smaller --max-total-tokens or --kv-cache-memory"
    case .outOfPages(let wanted, let free):
      "the KV cache has \(free) free pages, \(wanted) wanted; try a larger --max-total-tokens or fewer requests"
    case .fileFailed(let action, let path, let reason): "could not \(action) '\(path)': \(reason)"
    case .fileRejected(let path, let reason):
      "'\(path)' is not a usable saved prefix: \(reason); save it again with 'nibble cache save'"
    case .identityMismatch(let path, let field, let expected, let found):
      """
      '\(path)' was saved for another cache: expected \(field) \(expected), found \(found); \
      use the model, --kv-cache-dtype and --attention-backend it was saved with, or save it again
      """
    case .corrupted(let reason): "the KV cache's books don't balance: \(reason); please report this"
    }
  }

  static func validate(pageSize: Int) throws(PagedCacheError) {
    guard pageSize > 0, pageSize % 16 == 0, pageSize <= 4096 else {
      throw .invalidGeometry("expected a page size that is a multiple of 16 up to 4096, found \(pageSize)")
    }
  }

  static func validate(dimension: Int, recipe: KVRecipe) throws(PagedCacheError) {
    do throws(KVQuantizationError) { try recipe.validate(dimension: dimension) } catch { throw .recipe(error) }
  }
}
