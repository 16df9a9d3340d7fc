/// The books of a page pool: which sequence and which cached prefix refers to which page. One thread at a time.
///
/// Draft layers have a pool of their own, with recipes of their own, under the same books: a page id names a page of each, for the
/// same tokens, and whatever happens to one happens to the other.
///
/// A sequence's life: `makeTable(matching:)` finds what is cached already; `reserve` provides pages before each step and
/// `advance` records what the step stored; `publish` shares full pages with those who come later; `finish` leaves everything,
/// the partly filled page too, to the prefix tree.
public final class CacheManager {
  public let pool: PagePool
  /// The draft layers' pages, as many as `pool` has.
  public let draftPool: PagePool?
  public internal(set) var allocator: PageAllocator
  public internal(set) var tree: PrefixTree
  public let swap: SwapSpace?
  /// Whether finished sequences leave their pages to the prefix tree.
  public let sharesPrefixes: Bool

  /// Pages copied because a writer met a shared one, or to use a part of one.
  public internal(set) var copiedPageCount = 0

  /// - Parameters:
  ///   - draftPool: equal to `pool` in number and size of pages.
  ///   - swap: host memory for preempted sequences, slots of `pageBytes`.
  ///   - sharesPrefixes: false keeps the prefix tree empty.
  public init(pool: PagePool, draftPool: PagePool? = nil, swap: SwapSpace? = nil, sharesPrefixes: Bool = true) {
    precondition(draftPool.map { $0.pageCount == pool.pageCount && $0.layout.pageSize == pool.layout.pageSize } ?? true)
    self.pool = pool
    self.draftPool = draftPool
    self.swap = swap
    self.sharesPrefixes = sharesPrefixes
    allocator = PageAllocator(pageCount: pool.pageCount)
    tree = PrefixTree(pageCount: pool.pageCount, pageSize: pool.layout.pageSize)
  }

  public var pageSize: Int { pool.layout.pageSize }
  /// Pages that a caller can have: free ones and those that eviction would free.
  public var availablePageCount: Int { allocator.freeCount + tree.evictableCount }
  /// Pages that sequences hold.
  public var activePageCount: Int { pool.pageCount - availablePageCount }

  /// Pages that cover `count` tokens.
  public func pageCount(forTokens count: Int) -> Int { (count + pageSize - 1) / pageSize }

  // MARK: A sequence's pages

  /// Tokens at the start of `tokens` that are cached, found without taking them; at most `limit`.
  public func cachedPrefixLength(of tokens: [Int32], limit: Int) -> Int {
    forEachCachedPage(of: tokens, limit: limit) { _ in }
  }

  /// Visits the pages of the longest cached prefix of `tokens` in order; the last one may hold other tokens behind it.
  /// - Returns: the prefix's tokens, at most `limit`.
  func forEachCachedPage(of tokens: [Int32], limit: Int, _ body: (Int32) -> Void) -> Int {
    tokens.withUnsafeBufferPointer { tokens in
      let tokens = UnsafeBufferPointer(rebasing: tokens.prefix(limit))
      var parent = tree.root
      var length = 0
      while length + pageSize <= tokens.count,
        let page = tree.child(of: parent, holding: tokens.slice(length, pageSize))
      {
        body(page)
        parent = page
        length += pageSize
      }
      guard let tail = tree.closestChild(of: parent, to: tokens.slice(length, pageSize)) else { return length }
      body(tail.page)
      return length + tail.count
    }
  }

  /// A table over the longest cached prefix of `tokens`, with pages reserved for `tokenCount` tokens. Full pages are shared; of a
  /// page that fits in part the caller gets a copy. All or nothing.
  /// - Parameters:
  ///   - limit: tokens to take from the cache at most; leave one whose logits are wanted.
  ///   - headroom: pages that must remain available to others.
  /// - Throws: `PagedCacheError.outOfPages`.
  public func makeTable(
    matching tokens: [Int32], limit: Int, reserving tokenCount: Int = 0, headroom: Int = 0
  ) throws(PagedCacheError) -> PageTable {
    var table = fullPages(matching: tokens, limit: limit)
    guard sharesPrefixes else {
      try reserve(&table, tokenCount: tokenCount, headroom: headroom)
      return table
    }
    let match = tokens.withUnsafeBufferPointer { tokens in
      let rest = UnsafeBufferPointer(rebasing: tokens.prefix(limit)).slice(table.length, pageSize)
      return tree.closestChild(of: table.pages.last ?? tree.root, to: rest)
    }
    // The newest now, so that making room doesn't evict what is about to be copied.
    if let match { tree.touch(match.page) }
    do throws(PagedCacheError) {
      try reserve(&table, tokenCount: max(tokenCount, table.length + (match?.count ?? 0)), headroom: headroom)
    } catch {
      release(&table)
      throw error
    }
    if let match, tree.contains(match.page) {
      copyPage(match.page, to: table.pages[table.length / pageSize])
      copiedPageCount += 1
      table.length += match.count
    }
    return table
  }

  /// A table over the full pages of `tokens` that are cached, shared.
  func fullPages(matching tokens: [Int32], limit: Int) -> PageTable {
    var table = PageTable()
    guard sharesPrefixes else { return table }
    tokens.withUnsafeBufferPointer { tokens in
      while table.length + pageSize <= limit,
        let page = tree.child(of: table.pages.last ?? tree.root, holding: tokens.slice(table.length, pageSize))
      {
        share(page)
        table.pages.append(page)
        table.length += pageSize
      }
    }
    table.publishedCount = table.pages.count
    return table
  }

  /// Pages that `reserve` would take.
  public func pagesNeeded(by table: PageTable, tokenCount: Int) -> Int {
    max(0, pageCount(forTokens: tokenCount) - table.pages.count) + (needsCopy(table, tokenCount: tokenCount) ? 1 : 0)
  }

  /// Makes room for tokens `table.length ..< tokenCount`: appends pages, evicting cached prefixes if none is free, and copies
  /// the partly filled page if others refer to it. All or nothing.
  /// - Throws: `PagedCacheError.outOfPages`; the table is as before.
  public func reserve(
    _ table: inout PageTable, tokenCount: Int, headroom: Int = 0
  ) throws(PagedCacheError) {
    let needed = pagesNeeded(by: table, tokenCount: tokenCount)
    guard needed + headroom <= availablePageCount || needed == 0 && headroom == 0 else {
      throw .outOfPages(wanted: needed + headroom, free: availablePageCount)
    }
    if needsCopy(table, tokenCount: tokenCount), let copy = allocatePage() {
      let index = table.length / pageSize
      copyPage(table.pages[index], to: copy)
      copiedPageCount += 1
      unshare(table.pages[index])
      table.pages[index] = copy
    }
    while table.pages.count < pageCount(forTokens: tokenCount), let page = allocatePage() { table.pages.append(page) }
  }

  /// Records that a step stored `count` more tokens.
  public func advance(_ table: inout PageTable, by count: Int) {
    precondition(pageCount(forTokens: table.length + count) <= table.pages.count, "advanced beyond the reserved pages")
    table.length += count
  }

  /// A second table over the same tokens. Both copy the partly filled page before they write to it.
  public func fork(_ table: PageTable) -> PageTable {
    var copy = table
    copy.pages.removeSubrange(pageCount(forTokens: table.length)...)
    for page in copy.pages { share(page) }
    return copy
  }

  /// Ends a table; what the tree holds stays cached.
  public func release(_ table: inout PageTable) {
    for page in table.pages.reversed() { unshare(page) }
    table = PageTable()
  }

  // MARK: Sharing

  /// Puts the table's full pages into the prefix tree. Where the tree has an equal page already, the table changes over to it
  /// and gives its own back.
  /// - Parameter tokens: the sequence's ids, at least `table.length` of them.
  public func publish(_ table: inout PageTable, tokens: [Int32]) {
    guard sharesPrefixes else { return }
    tokens.withUnsafeBufferPointer { tokens in
      while (table.publishedCount + 1) * pageSize <= table.length {
        let index = table.publishedCount
        let parent = index == 0 ? tree.root : table.pages[index - 1]
        let own = table.pages[index]
        let content = tokens.slice(index * pageSize, pageSize)
        if let existing = tree.child(of: parent, holding: content) {
          if existing != own {
            share(existing)
            unshare(own)
            table.pages[index] = existing
          }
        } else {
          dropRedundantTails(under: parent, beside: content)
          allocator.retain(own)
          tree.insert(own, under: parent, tokens: content)
        }
        table.publishedCount += 1
      }
    }
  }

  /// Ends a sequence and leaves all its tokens, the partly filled page too, to the prefix tree.
  public func finish(_ table: inout PageTable, tokens: [Int32]) {
    publish(&table, tokens: tokens)
    let rest = table.length % pageSize
    let index = table.length / pageSize
    if sharesPrefixes, rest > 0, allocator.referenceCount(of: table.pages[index]) == 1 {
      let parent = index == 0 ? tree.root : table.pages[index - 1]
      tokens.withUnsafeBufferPointer { tokens in
        let content = tokens.slice(index * pageSize, rest)
        if tree.closestChild(of: parent, to: content)?.count ?? 0 < rest {
          dropRedundantTails(under: parent, beside: content)
          allocator.retain(table.pages[index])
          tree.insert(table.pages[index], under: parent, tokens: content)
        }
      }
    }
    release(&table)
  }

  /// Forgets all cached prefixes that no sequence uses.
  public func evictAll() {
    while let page = tree.evictOldest() { allocator.release(page) }
  }

  // MARK: Pages

  func allocatePage() -> Int32? {
    if let page = allocator.allocate() { return page }
    guard let page = tree.evictOldest() else { return nil }
    allocator.release(page)
    return allocator.allocate()
  }

  private func share(_ page: Int32) {
    allocator.retain(page)
    if tree.contains(page) { tree.pin(page) }
  }

  private func unshare(_ page: Int32) {
    if allocator.release(page) == 1, tree.contains(page) { tree.unpin(page) }
  }

  private func dropRedundantTails(under parent: Int32, beside tokens: UnsafeBufferPointer<Int32>) {
    while let tail = tree.redundantTail(under: parent, beside: tokens) {
      tree.remove(tail)
      allocator.release(tail)
    }
  }

  private func needsCopy(_ table: PageTable, tokenCount: Int) -> Bool {
    guard tokenCount > table.length, table.length % pageSize > 0 else { return false }
    return allocator.referenceCount(of: table.pages[table.length / pageSize]) > 1
  }
}

extension UnsafeBufferPointer {
  /// Elements from `start` on, at most `count`.
  func slice(_ start: Int, _ count: Int) -> UnsafeBufferPointer {
    UnsafeBufferPointer(rebasing: self[start..<Swift.min(start + count, self.count)])
  }
}
