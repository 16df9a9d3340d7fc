/// Everything that the bytes of a page depend on besides the tokens: pages may be exchanged between two caches only if all of
/// it is equal. Ordered names and values, so that a mismatch can be named.
public struct CacheIdentity: Hashable, Sendable {
  public struct Field: Hashable, Sendable {
    public let name: String
    public let value: String
  }

  public let fields: [Field]

  /// - Parameters:
  ///   - model: names the weights, such as a hash over them.
  ///   - arithmetic: names the implementation that fills the pages (backend, instruction set, version): others round differently.
  ///   - draftPool: where draft layers have pages too.
  public init(model: String, arithmetic: String, pool: PagePool, draftPool: PagePool? = nil) {
    var pairs = [("model", model), ("arithmetic", arithmetic), ("layout_version", "\(CacheLayout.version)")]
    pairs += Self.pairs(of: pool)
    if let draftPool { pairs += Self.pairs(of: draftPool).map { ("draft_" + $0.0, $0.1) } }
    fields = pairs.map { Field(name: $0.0, value: $0.1.filter { !$0.isNewline }) }
  }

  private static func pairs(of pool: PagePool) -> [(String, String)] {
    var pairs: [(String, String)] = []
    switch pool.layout {
    case .mha(let layout):
      pairs += [
        ("layout", "mha"), ("kv_heads", "\(layout.kvHeadCount)"), ("head_dim", "\(layout.headDimension)"),
        ("kv_cache_dtype_k", layout.recipeK.name), ("kv_cache_dtype_v", layout.recipeV.name),
      ]
    case .mla(let layout):
      pairs += [
        ("layout", "mla"), ("latent_dim", "\(layout.latentDimension)"), ("rope_dim", "\(layout.ropeDimension)"),
        ("kv_cache_dtype_latent", layout.recipeLatent.name), ("kv_cache_dtype_rope", layout.recipeRope.name),
      ]
    }
    pairs += [("page_size", "\(pool.layout.pageSize)"), ("layers", "\(pool.layerCount)")]
    let scales = pool.scales.map { "\(hex($0.key.bitPattern)):\(hex($0.value.bitPattern))" }
    return pairs + [("scales", scales.joined(separator: ","))]
  }

  /// One "name=value" a line, as it stands in files.
  var text: String { fields.map { "\($0.name)=\($0.value)\n" }.joined() }

  /// The first field in which `text`, another identity's, differs; nil if they are equal.
  func firstDifference(from text: String) -> (field: String, expected: String, found: String)? {
    var others: [Substring: Substring] = [:]
    for line in text.split(separator: "\n") {
      guard let equals = line.firstIndex(of: "=") else { continue }
      others[line[..<equals]] = line[line.index(after: equals)...]
    }
    for field in fields {
      let found = others.removeValue(forKey: field.name[...])
      if found != field.value[...] { return (field.name, field.value, found.map(String.init) ?? "nothing") }
    }
    return others.first.map { (String($0.key), "nothing", String($0.value)) }
  }

  private static func hex(_ bits: UInt32) -> String { String(bits, radix: 16) }
}
