/// The pages of one sequence, in order. Pages beyond those that `length` covers are reserved for tokens to come and always
/// private. A table holds one reference to each of its pages; only `CacheManager` makes, changes and ends tables.
public struct PageTable: Sendable {
  /// Page ids; token t lies in page `pages[t / pageSize]`.
  public internal(set) var pages: [Int32] = []
  /// Tokens stored.
  public internal(set) var length = 0
  /// Leading pages that are nodes of the prefix tree.
  var publishedCount = 0

  public init() {}

  public var isEmpty: Bool { pages.isEmpty }

  /// Makes room for the ids of `count` pages, so that later ones don't allocate.
  public mutating func reserveCapacity(_ count: Int) { pages.reserveCapacity(count) }
}

/// A sequence's pages in the swap space: slot i holds page i.
public struct SwappedTable: Hashable, Sendable {
  public internal(set) var slots: [Int32] = []
  /// Tokens stored.
  public internal(set) var length = 0

  public init() {}

  public var isEmpty: Bool { slots.isEmpty }
}
