import KVQuantization

/// What a region of a page record holds.
public enum CacheRegionKind: Int32, Hashable, Sendable {
  case key = 0
  case value = 1
  /// MLA's compressed latent, which is key and value of every head.
  case latent = 2
  /// MLA's rotary key, shared by every head.
  case rope = 3
}

/// One contiguous part of a page record: `pageSize` rows of one head's keys or values (or MLA's latent or rotary keys),
/// codes first, block scales after them. The order of bytes inside codes and scales is CSIMD's record layout.
public struct CacheRegion: Hashable, Sendable {
  public let kind: CacheRegionKind
  public let recipe: KVRecipe
  /// Values in a row.
  public let dimension: Int
  /// KV head that the region belongs to; 0 for MLA.
  public let head: Int
  /// Offset of the codes from the start of the record, in bytes.
  public let codeOffset: Int
  /// Offset of the block scales from the start of the record, in bytes.
  public let scaleOffset: Int
}

/// The geometry of one page of one layer. A page's codes and scales lie in one contiguous record per layer, so that moving,
/// sharing, saving or sending a page is one copy and scales can't be left behind.
public enum CacheLayout: Hashable, Sendable {
  case mha(MHALayout)
  case mla(MLALayout)

  /// Version of the byte order inside a record; saved files carry it.
  public static let version: Int32 = 2

  /// Tokens in a page.
  public var pageSize: Int {
    switch self {
    case .mha(let layout): layout.pageSize
    case .mla(let layout): layout.pageSize
    }
  }

  /// The regions of a record in memory order. MHA: for each KV head its keys, then its values; MLA: latent, rope.
  public var regions: [CacheRegion] {
    switch self {
    case .mha(let layout): layout.regions
    case .mla(let layout): layout.regions
    }
  }

  /// Bytes of one token in one layer.
  public var bytesPerToken: Int {
    switch self {
    case .mha(let layout): layout.bytesPerToken
    case .mla(let layout): layout.bytesPerToken
    }
  }

  /// Bytes of one page of one layer.
  public var recordBytes: Int { bytesPerToken * pageSize }
}

/// Lays regions one behind the other.
struct RegionBuilder {
  let pageSize: Int
  private(set) var regions: [CacheRegion] = []
  private var offset = 0

  init(pageSize: Int) { self.pageSize = pageSize }

  mutating func append(_ kind: CacheRegionKind, recipe: KVRecipe, dimension: Int, head: Int = 0) {
    let codes = recipe.codeBytes(dimension: dimension) * pageSize
    regions.append(
      CacheRegion(
        kind: kind, recipe: recipe, dimension: dimension, head: head, codeOffset: offset, scaleOffset: offset + codes))
    offset += codes + recipe.scaleBytes(dimension: dimension) * pageSize
  }
}
